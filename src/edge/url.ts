// The URL before anything reads it: what no user id, number or cursor can be is refused here, for every path.
import { invalidInput } from "../model/errors.ts";

/**
 * Throws Problem 400 unless path and query are percent-encoded UTF-8 (RFC 3986) without U+0000, and each query
 * parameter is given once: which of two would count is a guess that nobody should have to make.
 */
export function checkUrl(url: string): void {
  if (url.includes("%")) checkEncoding(url);
  const start = url.indexOf("?");
  if (start !== -1) checkNames(url.slice(start));
}

function checkEncoding(url: string): void {
  let text: string;
  try {
    text = decodeURIComponent(url);
  } catch {
    throw invalidInput("", "must be percent-encoded UTF-8");
  }
  if (text.includes("\0")) throw invalidInput("", "must not contain U+0000");
}

function checkNames(query: string): void {
  const names = [...new URLSearchParams(query).keys()];
  const repeated = names.find((name, index) => names.indexOf(name) !== index);
  if (repeated !== undefined) throw invalidInput(`/${repeated.slice(0, 64)}`, "must be given once");
}
