// Access tokens that nothing may take, each wrong in one way only.
import { SignJWT, UnsecuredJWT } from "jose";
import type { TestServer } from "./server.ts";

/** A token that is refused (null: none is sent) and the code of its 401. */
export interface BadToken {
  name: string;
  token: string | null;
  code: string;
}

type Claims = Record<string, unknown>;

/** All of them, for a user who could do everything with a good one. */
export async function makeBadTokens(server: TestServer, user: string): Promise<BadToken[]> {
  const now = Math.floor(Date.now() / 1000);
  const good: Claims = {
    sub: user,
    scope: "messages:read messages:write admin",
    iss: server.config.JWT_ISSUER,
    aud: server.config.JWT_AUDIENCE,
    iat: now,
    exp: now + 600,
  };
  const secret = String(server.config.JWT_SECRET);
  const sign = (claims: Claims, algorithm = "HS256", key = secret) =>
    new SignJWT({ ...good, ...claims })
      .setProtectedHeader({ alg: algorithm })
      .sign(new TextEncoder().encode(key));
  const unsecured = new UnsecuredJWT(good).encode();
  const valid = await sign({});
  const invalid = async (name: string, token: string | Promise<string>): Promise<BadToken> => ({
    name,
    token: await token,
    code: "invalid_token",
  });

  return [
    { name: "no token", token: null, code: "missing_token" },
    await invalid("garbage", "garbage"),
    await invalid("garbage in three parts", "a.b.c"),
    await invalid("HS512 with the right secret", sign({}, "HS512")),
    await invalid("HS384 with the right secret", sign({}, "HS384")),
    await invalid("RS256 in name, signed with the secret", signedAs("RS256", good, secret)),
    await invalid("none in name, signed with the secret", signedAs("none", good, secret)),
    await invalid("none", unsecured),
    await invalid("none with another's signature", unsecured + valid.slice(valid.lastIndexOf(".") + 1)),
    await invalid("another secret", sign({}, "HS256", `${secret}.`)),
    await invalid("claims that were changed", changedClaims(valid, user)),
    await invalid("another issuer", sign({ iss: "other" })),
    await invalid("another audience", sign({ aud: "other" })),
    await invalid("no subject", sign({ sub: undefined })),
    await invalid("no end", sign({ exp: undefined })),
    { name: "expired", token: await sign({ exp: now - 1 }), code: "token_expired" },
    {
      name: "revoked",
      token: await makeRevokedToken(server, await sign({ jti: "revoked" }), "revoked"),
      code: "token_revoked",
    },
    {
      name: "of a revoked family",
      token: await makeRevokedToken(server, await sign({ sid: "family" }), "family"),
      code: "token_revoked",
    },
  ];
}

/** Takes a token back behind the server's back: no instance is told. */
export async function makeRevokedToken(server: TestServer, token: string, id: string): Promise<string> {
  await server.postgres.query(
    "insert into revoked_tokens (id, expires_at) values ($1, now() + interval '1 hour')",
    [id],
  );
  return token;
}

function signedAs(algorithm: string, claims: Claims, secret: string): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: algorithm, typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${new Bun.CryptoHasher("sha256", secret).update(signed).digest("base64url")}`;
}

function changedClaims(token: string, user: string): string {
  const [header, claims = "", signature] = token.split(".");
  const text = Buffer.from(claims, "base64url").toString().replace(user, `${user}x`);
  return [header, Buffer.from(text).toString("base64url"), signature].join(".");
}
