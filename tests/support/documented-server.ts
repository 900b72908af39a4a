// A node whose every answer is held against its own OpenAPI document: the call must be there, with this status, this
// content type and a body as the schema says. A 500 is a failure always.
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020";
import addFormats from "ajv-formats";
import { type Answer, type CallOptions, startServer, type TestServer } from "./server.ts";

interface Operation {
  responses?: Record<string, { content?: Record<string, { schema?: object }> }>;
}

/** As much of an OpenAPI document as is used here. */
export interface OpenApiDocument {
  paths: Record<string, Record<string, Operation>>;
  components: object;
}

/** A node and its document. */
export interface DocumentedServer extends TestServer {
  document: OpenApiDocument;
}

/** Starts a node without its workers; `call` and `post` throw for an answer that is not as documented. */
export async function startDocumentedServer(changes: Record<string, string> = {}): Promise<DocumentedServer> {
  const server = await startServer({ ROLES: "api", ...changes });
  const document: OpenApiDocument = (await server.call("GET", "/openapi.json", undefined, { as: null })).body;
  const check = documentChecker(document);
  const call = async (method: string, path: string, body?: unknown, options?: CallOptions) => {
    const answer = await server.call(method, path, body, options);
    check(method, path, answer);
    return answer;
  };
  const { [Symbol.asyncDispose]: close } = server;
  return {
    ...server,
    document,
    call,
    post(conversationId, text, { messageId = crypto.randomUUID(), ...options } = {}) {
      const payload = { type: "text", text };
      return call(
        "POST",
        "/v1/messages",
        { message_id: messageId, conversation_id: conversationId, payload },
        options,
      );
    },
    [Symbol.asyncDispose]: close,
  };
}

/** Answers what throws for an answer that is not as the document says. */
export function documentChecker(document: OpenApiDocument) {
  const ajv = addFormats(new Ajv2020({ strict: false, allErrors: true }));
  const validators = new Map<object, ValidateFunction>();
  const templates = Object.keys(document.paths).map((template) => ({
    template,
    pattern: new RegExp(`^${template.replaceAll(/\{[^}]+\}/g, "[^/]+").replaceAll(".", "\\.")}$`),
  }));

  const validatorOf = (schema: object): ValidateFunction => {
    const known = validators.get(schema);
    if (known !== undefined) return known;
    const validator = ajv.compile({ ...schema, components: document.components });
    validators.set(schema, validator);
    return validator;
  };

  return (method: string, path: string, answer: Answer): void => {
    const seen = `${method} ${path.slice(0, 100)}: ${answer.status}`;
    if (answer.status >= 500 && answer.status !== 503) throw new Error(`${seen} ${answer.body.request_id}`);
    if (!/^[0-9a-f]{32}$/.test(answer.headers.get("x-request-id") ?? ""))
      throw new Error(`${seen} has no X-Request-Id`);
    const pathOnly = path.replace(/\?.*$/s, "");
    const found = templates.find(({ pattern }) => pattern.test(pathOnly));
    const operation = found && document.paths[found.template]?.[method.toLowerCase()];
    if (operation === undefined) {
      if (answer.status === 404 && answer.body.code === "route_not_found") return;
      throw new Error(`${seen} is of a call that is not documented`);
    }
    const response = operation.responses?.[answer.status];
    if (response === undefined) throw new Error(`${seen} is not documented`);
    const type = answer.headers.get("content-type")?.split(";")[0] ?? "none";
    const schema = response.content?.[type]?.schema;
    if (response.content === undefined && answer.body === "") return;
    if (schema === undefined) throw new Error(`${seen} with ${type} is not documented`);
    const validate = validatorOf(schema);
    if (!validate(answer.body))
      throw new Error(`${seen} is not as documented: ${ajv.errorsText(validate.errors)}`);
  };
}
