// How values of Postgres look here where the driver's own way does not fit; the numbers are those of pg_type.oid.
// The arrays are listed since the driver would otherwise ask the server for them on each new connection, with a query
// whose failure nobody catches.

const json = { to: 114, from: [114, 3802], serialize: String, parse: (text: string) => text };
const bigintAsNumber = { to: 20, from: [20], serialize: String, parse: Number };
/** text[] and uuid[]. */
const textArray = { to: 1009, from: [1009, 2951], serialize: arrayLiteral, parse: arrayItems };
/** smallint[], integer[] and bigint[]. */
const numberArray = {
  to: 1016,
  from: [1005, 1007, 1016],
  serialize: arrayLiteral,
  parse: (literal: string) => arrayItems(literal).map((item) => (item === null ? null : Number(item))),
};

/** For the driver's option `types`. */
export const types = { json, bigint: bigintAsNumber, textArray, numberArray };

/** The literal of an array of one dimension (PostgreSQL, 8.15.2). */
function arrayLiteral(items: readonly (string | number | null)[]): string {
  const quoted = items.map((item) => (item === null ? "null" : `"${escape(String(item))}"`));
  return `{${quoted.join(",")}}`;
}

function escape(item: string): string {
  return item.replaceAll(/[\\"]/g, "\\$&");
}

/** The items of such a literal. */
function arrayItems(literal: string): (string | null)[] {
  return Array.from(literal.matchAll(/"((?:[^"\\]|\\.)*)"|([^{},]+)/gs), ([, quoted, plain]) => {
    if (quoted !== undefined) return quoted.replaceAll(/\\(.)/gs, "$1");
    return plain === undefined || plain === "NULL" ? null : plain;
  });
}
