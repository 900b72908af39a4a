-- wrk: each request posts one message with an id of its own to a random conversation.
-- Environment: TOKEN, a bearer token; IDS, a file with a conversation's id on each line; RUN, 8 hex digits that no
-- other run has.
local thread_count = 0

function setup(thread)
  thread_count = thread_count + 1
  thread:set("thread_number", thread_count)
end

function init()
  math.randomseed(os.time() * 1000 + thread_number)
  ids = {}
  for line in io.lines(os.getenv("IDS")) do ids[#ids + 1] = line end
  run = os.getenv("RUN")
  sent = 0
  wrk.method = "POST"
  wrk.path = "/v1/messages"
  wrk.headers["content-type"] = "application/json"
  wrk.headers["authorization"] = "Bearer " .. os.getenv("TOKEN")
end

function request()
  sent = sent + 1
  local id = string.format("%s-%04x-4000-8000-%012x", run, thread_number, sent)
  return wrk.format(nil, nil, nil, '{"message_id":"' .. id .. '","conversation_id":"' .. ids[math.random(#ids)] ..
    '","payload":{"type":"text","text":"0123456789012345678901234567890123456789"}}')
end

-- What the driver reads: answered, of those refused, and errors of the socket.
function done(summary, latency)
  io.write(string.format('{"requests":%d,"seconds":%.6f,"refused":%d,"socket_errors":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests, summary.duration / 1e6, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
