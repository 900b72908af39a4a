-- What token-bucket.ts does, for many callers in one call and by Redis's own clock.
--
-- KEYS: the buckets of each check, one check after the other.
-- ARGV: interval and capacity of a user's bucket, the same of a conversation's, then one letter for each check: u, c,
-- or b for one of both; in upper case the tokens are given back.
-- Answers for each check: 0, or which of its buckets is empty; then the microseconds until each of them is full.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local user = { interval = tonumber(ARGV[1]), capacity = tonumber(ARGV[2]) }
local conversation = { interval = tonumber(ARGV[3]), capacity = tonumber(ARGV[4]) }
local sizes_of = { u = { user }, c = { conversation }, b = { user, conversation } }
local until_full = {}
local answer = {}
local keys_read = 0

-- A clock that was set back finds times far ahead: no bucket can be further from full than an empty one.
local function read(key, size)
  if not until_full[key] then
    local left = tonumber(redis.call('GET', key) or now) - now
    until_full[key] = math.min(math.max(left, 0), size.capacity * size.interval)
  end
  return until_full[key]
end

for letter in string.gmatch(ARGV[5], '.') do
  local sizes = sizes_of[string.lower(letter)]
  local gives_back = letter ~= string.lower(letter)
  local empty = 0
  for index, size in ipairs(sizes) do
    local left = read(KEYS[keys_read + index], size)
    if empty == 0 and not gives_back and left > (size.capacity - 1) * size.interval then empty = index end
  end
  answer[#answer + 1] = empty
  for index, size in ipairs(sizes) do
    local key = KEYS[keys_read + index]
    if gives_back then
      until_full[key] = math.max(until_full[key] - size.interval, 0)
    elseif empty == 0 then
      until_full[key] = until_full[key] + size.interval
    end
    answer[#answer + 1] = until_full[key]
  end
  keys_read = keys_read + #sizes
end

for key, left in pairs(until_full) do
  redis.call('SET', key, string.format('%.0f', now + left), 'PX', math.max(math.ceil(left / 1000), 1))
end
return answer
