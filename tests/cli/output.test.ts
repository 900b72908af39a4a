// What other people wrote must not get hold of a reader's terminal.
import { expect, test } from "bun:test";
import { placeOf, visible } from "../../src/cli/output.ts";

test.each([
  ["\x1b[2J", "\\u{1b}[2J"],
  ["\x9b31m", "\\u{9b}31m"],
  ["a\rb\nc\td", "a\\u{d}b\\u{a}c\\u{9}d"],
  ["\x07\x08\x7f", "\\u{7}\\u{8}\\u{7f}"],
  ["safe\u202eexe.txt", "safe\\u{202e}exe.txt"],
  ["\u2028next", "\\u{2028}next"],
])("%j is shown, not obeyed", (text, shown) => {
  expect(visible(text)).toBe(shown);
});

test("words in any script, and emoji of several parts, stay as they are", () => {
  for (const text of ["Grüße, 世界", "שלום", "👩‍👩‍👧‍👦 👍🏽"]) expect(visible(text)).toBe(text);
});

test.each([
  ["postgres://user:pa/ss@word@host:5432/chat?sslmode=require", "host:5432/chat"],
  ["redis://:secret@127.0.0.1:6379/0", "127.0.0.1:6379/0"],
  ["redis+sentinel://a:1,b:2/main", "a:1,b:2/main"],
])("of %s only the place is told", (url, place) => {
  expect(placeOf(url)).toBe(place);
});
