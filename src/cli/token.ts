// Prints an access token, so that it can stand in a command line: -H "Authorization: Bearer $(chat4all token)".
import { apiOptions, openApi } from "./api.ts";
import { defineCommand, jsonOption, UsageError, wholeNumber } from "./command.ts";
import { print } from "./output.ts";

const expiresInMax = 86_400;

export const token = defineCommand({
  summary: "Print an access token of the client, or of a user",
  options: {
    user: { type: "string", value: "ID", help: "A token of this user, minted by the client." },
    scope: { type: "string", value: '"S …"', help: "What it may do; default: all that it can." },
    "expires-in": { type: "string", value: "SECONDS", help: "Its life; with --user only." },
    ...apiOptions,
    ...jsonOption,
  },
  details: "Prints the access token only; with --json the whole answer, with a user's refresh token.",
  examples: ["token", 'token --user alice --scope "messages:read"', "token --user alice --json"],
  async run({ values }) {
    const expires_in = wholeNumber("--expires-in", values["expires-in"], expiresInMax);
    if (expires_in !== undefined && values.user === undefined)
      throw new UsageError("--expires-in needs --user");
    const api = openApi(values.url);
    const { scope, user } = values;
    const answer =
      user === undefined ? await api.clientToken(scope) : await api.userToken(user, { scope, expires_in });
    print(values.json ? JSON.stringify(answer) : answer.access_token);
  },
});
