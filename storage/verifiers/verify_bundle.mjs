// SPDX-License-Identifier: Apache-2.0
// Check an Answerable evidence bundle: one file, Node 18 or later or a browser, no dependencies, no network.
//
//     node verify_bundle.mjs BUNDLE.zip [--trust policy.json] [--json]
//
// Written from the specification ("Evidence bundles" in storage/README.md) and without the project's other code, so
// that a fault there is not repeated here. Exit 0: holds, 1: something does not, 2: cannot tell.

const FORMAT = "answerable/bundle/v1";
const FILES_MAX = 20_000, CONTENT_BYTES_MAX = 2 ** 31, MANIFEST_BYTES_MAX = 64 << 20;
const LINE_BYTES_MAX = 1 << 20, DEPTH_MAX = 100, NOTE_BYTES_MAX = 1 << 20, SIGNATURES_MAX = 100, LISTED_MAX = 10_000;
const SIZE_MAX = 2n ** 63n - 1n;
const CLAIMS = ["integrity", "completeness", "freshness", "authenticity"];

class Broken extends Error {} // a claim does not hold
class NotUnderstood extends Error {} // the file is no bundle of this format

const encoder = new TextEncoder();
const bytesOf = (text) => encoder.encode(text);

function decoded(raw) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw);
  } catch {
    throw new Broken("not UTF-8");
  }
}

function joined(...pieces) {
  const made = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    made.set(piece, at);
    at += piece.length;
  }
  return made;
}

function same(a, b) {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

function compared(a, b) {
  const shorter = Math.min(a.length, b.length);
  for (let at = 0; at < shorter; at += 1) if (a[at] !== b[at]) return a[at] - b[at];
  return a.length - b.length;
}

const hex = (raw) => Array.from(raw, (byte) => byte.toString(16).padStart(2, "0")).join("");

// --- SHA-2 (FIPS 180-4) and HMAC (RFC 2104) -------------------------------------------------------------------------

function primes(count) {
  const found = [];
  for (let one = 2; found.length < count; one += 1) if (found.every((prime) => one % prime)) found.push(one);
  return found;
}

function root(value, degree) {
  // the integer part of the degree-th root
  let low = 0n, high = 1n << BigInt(Math.ceil(value.toString(2).length / degree) + 1);
  while (low + 1n < high) {
    const middle = (low + high) / 2n;
    if (middle ** BigInt(degree) <= value) low = middle;
    else high = middle;
  }
  return low;
}

const fraction = (prime, degree, bits) => root(BigInt(prime) << BigInt(bits * degree), degree) & ((1n << BigInt(bits)) - 1n);
const K256 = Uint32Array.from(primes(64), (prime) => Number(fraction(prime, 3, 32)));
const H256 = Uint32Array.from(primes(8), (prime) => Number(fraction(prime, 2, 32)));
const K512 = primes(80).map((prime) => fraction(prime, 3, 64));
const H512 = primes(8).map((prime) => fraction(prime, 2, 64));

class Sha256 {
  constructor() {
    this.state = Uint32Array.from(H256);
    this.rest = new Uint8Array(64);
    this.held = 0;
    this.length = 0;
    this.words = new Uint32Array(64);
  }

  update(data) {
    this.length += data.length;
    let at = 0;
    if (this.held) {
      const count = Math.min(64 - this.held, data.length);
      this.rest.set(data.subarray(0, count), this.held);
      this.held += count;
      at = count;
      if (this.held < 64) return this;
      this.block(this.rest, 0);
      this.held = 0;
    }
    for (; at + 64 <= data.length; at += 64) this.block(data, at);
    this.rest.set(data.subarray(at));
    this.held = data.length - at;
    return this;
  }

  block(data, start) {
    const w = this.words;
    for (let t = 0, at = start; t < 16; t += 1, at += 4)
      w[t] = (data[at] << 24) | (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3];
    for (let t = 16; t < 64; t += 1) {
      const x = w[t - 15], y = w[t - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    let [a, b, c, d, e, f, g, h] = this.state;
    for (let t = 0; t < 64; t += 1) {
      const S1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + S1 + ((e & f) ^ (~e & g)) + K256[t] + w[t]) | 0;
      const S0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (S0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0;
    }
    const s = this.state;
    s[0] += a; s[1] += b; s[2] += c; s[3] += d; s[4] += e; s[5] += f; s[6] += g; s[7] += h;
  }

  digest() {
    const bits = this.length * 8, padding = new Uint8Array(((this.length + 72) & ~63) - this.length);
    padding[0] = 0x80;
    const view = new DataView(padding.buffer);
    view.setUint32(padding.length - 8, Math.floor(bits / 2 ** 32));
    view.setUint32(padding.length - 4, bits >>> 0);
    this.update(padding);
    const made = new Uint8Array(32), out = new DataView(made.buffer);
    this.state.forEach((word, at) => out.setUint32(4 * at, word));
    return made;
  }
}

const sha256 = (...pieces) => pieces.reduce((hash, piece) => hash.update(piece), new Sha256()).digest();

function sha512(data) {
  const mask = (1n << 64n) - 1n, turned = (x, n) => ((x >> n) | (x << (64n - n))) & mask;
  const padded = new Uint8Array((data.length + 17 + 127) & ~127);
  padded.set(data);
  padded[data.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setBigUint64(padded.length - 8, BigInt(data.length) * 8n);
  const state = [...H512], w = new Array(80);
  for (let start = 0; start < padded.length; start += 128) {
    for (let t = 0; t < 16; t += 1) w[t] = view.getBigUint64(start + 8 * t);
    for (let t = 16; t < 80; t += 1) {
      const s0 = turned(w[t - 15], 1n) ^ turned(w[t - 15], 8n) ^ (w[t - 15] >> 7n);
      const s1 = turned(w[t - 2], 19n) ^ turned(w[t - 2], 61n) ^ (w[t - 2] >> 6n);
      w[t] = (w[t - 16] + s0 + w[t - 7] + s1) & mask;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let t = 0; t < 80; t += 1) {
      const S1 = turned(e, 14n) ^ turned(e, 18n) ^ turned(e, 41n);
      const t1 = (h + S1 + ((e & f) ^ (~e & mask & g)) + K512[t] + w[t]) & mask;
      const S0 = turned(a, 28n) ^ turned(a, 34n) ^ turned(a, 39n);
      const t2 = (S0 + ((a & b) ^ (a & c) ^ (b & c))) & mask;
      h = g; g = f; f = e; e = (d + t1) & mask; d = c; c = b; b = a; a = (t1 + t2) & mask;
    }
    [a, b, c, d, e, f, g, h].forEach((word, at) => { state[at] = (state[at] + word) & mask; });
  }
  const made = new Uint8Array(64), out = new DataView(made.buffer);
  state.forEach((word, at) => out.setBigUint64(8 * at, word));
  return made;
}

class Hmac {
  constructor(key) {
    const block = new Uint8Array(64);
    block.set(key.length > 64 ? sha256(key) : key);
    this.outer = block.map((byte) => byte ^ 0x5c);
    this.inner = new Sha256().update(block.map((byte) => byte ^ 0x36));
  }

  update(data) {
    this.inner.update(data);
    return this;
  }

  digest() {
    return sha256(this.outer, this.inner.digest());
  }
}

// --- Ed25519 (RFC 8032 section 5.1.7; canonical encodings, S < L, no cofactor) --------------------------------------

const P = 2n ** 255n - 19n, L = 2n ** 252n + 27742317777372353535851937790883648493n;
const mod = (value) => ((value % P) + P) % P;

function power(base, exponent) {
  let made = 1n;
  for (let running = mod(base); exponent; exponent >>= 1n, running = (running * running) % P)
    if (exponent & 1n) made = (made * running) % P;
  return made;
}

const inverse = (value) => power(value, P - 2n);
const D = mod(-121665n * inverse(121666n)), SQRT_M1 = power(2n, (P - 1n) / 4n);

function littleEndian(raw) {
  let made = 0n;
  for (let at = raw.length - 1; at >= 0; at -= 1) made = (made << 8n) | BigInt(raw[at]);
  return made;
}

function point(raw) {
  const whole = littleEndian(raw), sign = whole >> 255n, y = whole & ((1n << 255n) - 1n);
  if (y >= P) return null;
  const square = mod((y * y - 1n) * inverse(D * y * y + 1n));
  if (square === 0n) return sign ? null : [0n, y, 1n, 0n];
  let x = power(square, (P + 3n) / 8n);
  if (mod(x * x - square)) x = mod(x * SQRT_M1);
  if (mod(x * x - square)) return null;
  if ((x & 1n) !== sign) x = P - x;
  return [x, y, 1n, mod(x * y)];
}

function added(p, q) {
  const a = mod((p[1] - p[0]) * (q[1] - q[0])), b = mod((p[1] + p[0]) * (q[1] + q[0]));
  const c = mod(2n * p[3] * q[3] * D), d = mod(2n * p[2] * q[2]);
  const e = b - a, f = d - c, g = d + c, h = b + a;
  return [mod(e * f), mod(g * h), mod(f * g), mod(e * h)];
}

function times(scalar, base) {
  const table = [[0n, 1n, 1n, 0n], base];
  while (table.length < 16) table.push(added(table[table.length - 1], base));
  let made = table[0];
  for (let shift = 252n; shift >= 0n; shift -= 4n) {
    for (let turn = 0; turn < 4; turn += 1) made = added(made, made);
    made = added(made, table[Number((scalar >> shift) & 15n)]);
  }
  return made;
}

const BASE = (() => {
  const raw = new Uint8Array(32);
  for (let y = mod(4n * inverse(5n)), at = 0; at < 32; at += 1, y >>= 8n) raw[at] = Number(y & 255n);
  return point(raw);
})();

export function ed25519Holds(publicKey, message, signature) {
  if (publicKey.length !== 32 || signature.length !== 64) return false;
  const key = point(publicKey), nonce = point(signature.subarray(0, 32)), s = littleEndian(signature.subarray(32));
  if (!key || !nonce || s >= L) return false;
  const k = littleEndian(sha512(joined(signature.subarray(0, 32), publicKey, message))) % L;
  const left = times(s, BASE), right = added(nonce, times(k, key));
  return !mod(left[0] * right[2] - right[0] * left[2]) && !mod(left[1] * right[2] - right[1] * left[2]);
}

// --- texts in one spelling ------------------------------------------------------------------------------------------

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

function unbase64(text) {
  if (typeof text !== "string" || text.length % 4 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.includes("\n"))
    throw new Broken("not base64");
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const made = new Uint8Array((text.length / 4) * 3 - padding);
  for (let at = 0, to = 0; at < text.length; at += 4) {
    let word = 0;
    for (let turn = 0; turn < 4; turn += 1) word = (word << 6) | Math.max(0, ALPHABET.indexOf(text[at + turn]));
    const three = [(word >> 16) & 255, (word >> 8) & 255, word & 255];
    for (const byte of three) {
      if (to < made.length) made[to] = byte;
      else if (byte) throw new Broken("not base64 in its one spelling");
      to += 1;
    }
  }
  return made;
}

function unb64(value, length = 32) {
  if (typeof value !== "string" || !/^[A-Za-z0-9_-]*$/.test(value) || value.includes("\n") || value.length % 4 === 1)
    throw new Broken("expected base64url");
  const raw = unbase64(value.replaceAll("-", "+").replaceAll("_", "/") + "=".repeat((4 - (value.length % 4)) % 4));
  if (raw.length !== length) throw new Broken(`expected ${length} bytes in base64url`);
  return raw;
}

// --- JSON (RFC 8259), strictly --------------------------------------------------------------------------------------

class Fraction {} // a number that was written with a fraction or an exponent, or is beyond what an integer may be

const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const ESCAPES = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };

class Json {
  constructor(raw) {
    this.text = decoded(raw);
    this.at = 0;
  }

  parse() {
    const value = this.value(0);
    this.space();
    if (this.at !== this.text.length) this.fail();
    return value;
  }

  fail() {
    throw new Broken(`not JSON as it must be, at character ${this.at}`);
  }

  space() {
    while (" \t\n\r".includes(this.text[this.at] ?? "x")) this.at += 1;
  }

  value(depth) {
    this.space();
    const next = this.text[this.at];
    if (next === "{") return this.object(depth + 1);
    if (next === "[") return this.list(depth + 1);
    if (next === '"') return this.string();
    for (const [word, value] of [["true", true], ["false", false], ["null", null]])
      if (this.text.startsWith(word, this.at)) {
        this.at += word.length;
        return value;
      }
    NUMBER.lastIndex = this.at;
    const found = NUMBER.exec(this.text);
    if (!found) this.fail();
    this.at += found[0].length;
    if (found[1] !== undefined || found[2] !== undefined) return new Fraction();
    const number = Number(found[0]);
    return Number.isSafeInteger(number) ? (number === 0 ? 0 : number) : new Fraction();
  }

  object(depth) {
    if (depth > DEPTH_MAX) this.fail();
    const made = new Map();
    this.at += 1;
    this.space();
    if (this.text[this.at] === "}") {
      this.at += 1;
      return made;
    }
    for (;;) {
      this.space();
      if (this.text[this.at] !== '"') this.fail();
      const name = this.string();
      if (made.has(name)) this.fail();
      this.space();
      if (this.text[this.at] !== ":") this.fail();
      this.at += 1;
      made.set(name, this.value(depth));
      this.space();
      this.at += 1;
      if (this.text[this.at - 1] === "}") return made;
      if (this.text[this.at - 1] !== ",") this.fail();
    }
  }

  list(depth) {
    if (depth > DEPTH_MAX) this.fail();
    const made = [];
    this.at += 1;
    this.space();
    if (this.text[this.at] === "]") {
      this.at += 1;
      return made;
    }
    for (;;) {
      made.push(this.value(depth));
      this.space();
      this.at += 1;
      if (this.text[this.at - 1] === "]") return made;
      if (this.text[this.at - 1] !== ",") this.fail();
    }
  }

  string() {
    let made = "", from = (this.at += 1);
    for (;;) {
      const next = this.text[this.at];
      if (next === undefined || next < " ") this.fail();
      if (next === '"') {
        made += this.text.slice(from, this.at);
        this.at += 1;
        if (!made.isWellFormed?.() && /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/.test(made))
          throw new Broken("a lone surrogate");
        return made;
      }
      if (next !== "\\") {
        this.at += 1;
        continue;
      }
      made += this.text.slice(from, this.at);
      const kind = this.text[this.at + 1];
      if (kind === "u") {
        const digits = this.text.slice(this.at + 2, this.at + 6);
        if (!/^[0-9A-Fa-f]{4}$/.test(digits)) this.fail();
        made += String.fromCharCode(parseInt(digits, 16));
        this.at += 6;
      } else if (kind in ESCAPES) {
        made += ESCAPES[kind];
        this.at += 2;
      } else this.fail();
      from = this.at;
    }
  }
}

const parsed = (raw) => new Json(raw).parse();
const isObject = (value) => value instanceof Map;

function textOf(said, name) {
  const value = said.get(name);
  if (typeof value !== "string") throw new Broken(`${name}: expected a text`);
  return value;
}

function integerOf(said, name) {
  const value = said.get(name);
  if (typeof value !== "number") throw new Broken(`${name}: expected an integer`);
  return value;
}

function listOf(said, name, is, most = Infinity) {
  const value = said.get(name);
  if (!Array.isArray(value) || !value.every(is)) throw new Broken(`${name}: expected a list`);
  if (value.length > most) throw new Broken(`${name}: more than ${most}`);
  return value;
}

const isText = (value) => typeof value === "string";

// --- the container --------------------------------------------------------------------------------------------------

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let made = byte;
  for (let turn = 0; turn < 8; turn += 1) made = made & 1 ? (made >>> 1) ^ 0xedb88320 : made >>> 1;
  return made;
});

function crc32(data) {
  let made = 0xffffffff;
  for (const byte of data) made = CRC[(made ^ byte) & 255] ^ (made >>> 8);
  return (made ^ 0xffffffff) >>> 0;
}

class Container {
  constructor(raw, inflate) {
    this.raw = raw;
    this.view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
    this.inflate = inflate;
    this.members = new Map();
    this.read();
  }

  read() {
    const { raw, view } = this, end = raw.length - 22;
    if (end < 0 || view.getUint32(end, true) !== 0x06054b50)
      throw new NotUnderstood("not a ZIP file, or one with a comment or something else behind it");
    const short = (at) => view.getUint16(end + at, true), long = (at) => view.getUint32(end + at, true);
    const count = short(10), size = long(12), start = long(16);
    if (short(4) || short(6) || short(8) !== count || short(20) || count === 0xffff || [size, start].includes(0xffffffff))
      throw new NotUnderstood("a ZIP file of several parts, with a comment, or ZIP64");
    if (start + size !== end || count > FILES_MAX)
      throw new NotUnderstood("the directory is not where its end says, or has too many files");
    let at = start, total = 0;
    for (let number = 0; number < count; number += 1) {
      const member = this.record(at, end);
      at = member.after;
      total += member.size;
    }
    if (at !== end || total > CONTENT_BYTES_MAX) throw new NotUnderstood("the directory is longer than it says");
    this.checkPlaces(start);
  }

  record(at, end) {
    const { raw, view } = this;
    if (at + 46 > end || view.getUint32(at, true) !== 0x02014b50) throw new NotUnderstood("the directory is damaged");
    const short = (offset) => view.getUint16(at + offset, true), long = (offset) => view.getUint32(at + offset, true);
    const flags = short(8), method = short(10), crc = long(16), packed = long(20), size = long(24), local = long(42);
    const after = at + 46 + short(28);
    if (after > end) throw new NotUnderstood("the directory is damaged");
    const rawName = raw.subarray(at + 46, after), name = Array.from(rawName, (byte) => String.fromCharCode(byte)).join("");
    if (!/^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/.test(name) || name.split("/").some((step) => step === "." || step === ".."))
      throw new NotUnderstood("a file with a name that bundles have not");
    if (this.members.has(name)) throw new NotUnderstood(`${name} is there twice`);
    if (short(30) || short(32) || short(34))
      throw new NotUnderstood(`${name} has an extra field or a comment: another program packed it anew`);
    if ((method !== 0 && method !== 8) || flags & ~0x0806 || [packed, size, local].includes(0xffffffff))
      throw new NotUnderstood(`${name} is packed in a way that bundles are not`);
    const member = { name, rawName, flags, method, crc, local, begin: local + 30 + rawName.length, packed, size, after };
    this.members.set(name, member);
    return member;
  }

  checkPlaces(start) {
    // members fill the file up to its directory, and their own headers say what the directory says
    const { raw, view } = this;
    let at = 0;
    for (const member of [...this.members.values()].sort((a, b) => a.local - b.local)) {
      const { name, rawName, local, begin } = member;
      if (local !== at || begin + member.packed > start)
        throw new NotUnderstood(`${name} does not begin where the one before it ends, or is too long`);
      const short = (offset) => view.getUint16(local + offset, true), long = (offset) => view.getUint32(local + offset, true);
      const stated = [0x04034b50, member.flags, member.method, member.crc, member.packed, member.size, rawName.length, 0];
      const found = [long(0), short(6), short(8), long(14), long(18), long(22), short(26), short(28)];
      if (found.some((value, place) => value !== stated[place]) || !same(raw.subarray(local + 30, begin), rawName))
        throw new NotUnderstood(`the header of ${name} says something else than the directory`);
      at = begin + member.packed;
    }
    if (at !== start) throw new NotUnderstood("bytes that belong to no file");
  }

  async content(name, bytesMax = CONTENT_BYTES_MAX) {
    const member = this.members.get(name);
    if (!member) throw new Broken(`${name} is missing`);
    if (member.size > bytesMax) throw new Broken(`${name} has more than ${bytesMax} bytes`);
    const data = this.raw.subarray(member.begin, member.begin + member.packed);
    let made = data;
    if (member.method === 8) {
      try {
        made = await this.inflate(data, member.size);
      } catch (error) {
        throw new Broken(`${name}: ${error.message}`);
      }
    }
    if (made.length !== member.size || crc32(made) !== member.crc) throw new Broken(`${name} is not what its header says`);
    return made;
  }

  async lines(name) {
    const raw = await this.content(name), found = [];
    let from = 0;
    while (from < raw.length) {
      const at = raw.indexOf(10, from);
      if (at < 0) throw new Broken(`${name} does not end in a newline`);
      if (at - from > LINE_BYTES_MAX) throw new Broken(`${name} has a line of more than ${LINE_BYTES_MAX} bytes`);
      found.push(raw.subarray(from, at));
      from = at + 1;
    }
    return found;
  }
}

// --- trees and notes ------------------------------------------------------------------------------------------------

const ZERO = Uint8Array.of(0), ONE = Uint8Array.of(1);
const leafOf = (data) => sha256(ZERO, data);
const nodeOf = (left, right) => sha256(ONE, left, right);

function checkPath(leaf, index, size, path, root) {
  // RFC 9162 section 2.1.3.2; sizes may be beyond what a number holds
  if (index < 0n || index >= size) throw new Broken(`no leaf ${index} in a tree of ${size}`);
  let node = index, last = size - 1n, running = leaf;
  for (const sibling of path) {
    if (last === 0n) throw new Broken("a path is too long");
    if (node & 1n || node === last) {
      running = nodeOf(sibling, running);
      while (!(node & 1n) && node) {
        node >>= 1n;
        last >>= 1n;
      }
    } else running = nodeOf(running, sibling);
    node >>= 1n;
    last >>= 1n;
  }
  if (last || !same(running, root)) throw new Broken("a path does not lead to the root that was signed");
}

class Tree {
  constructor() {
    this.peaks = [];
    this.size = 0;
  }

  add(leaf) {
    let height = 0;
    while (this.peaks.length && this.peaks[this.peaks.length - 1][0] === height) {
      leaf = nodeOf(this.peaks.pop()[1], leaf);
      height += 1;
    }
    this.peaks.push([height, leaf]);
    this.size += 1;
  }

  root() {
    let running = null;
    for (const [, peak] of [...this.peaks].reverse()) running = running ? nodeOf(peak, running) : peak;
    return running ?? sha256(new Uint8Array());
  }
}

const NO_NAME = /[+\u0000-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;
const isName = (name) => name !== "" && !NO_NAME.test(name);

function parsedNote(note) {
  const raw = bytesOf(note);
  if (raw.length > NOTE_BYTES_MAX) throw new Broken("a note that is far too long");
  const end = note.lastIndexOf("\n\n");
  if (end < 0 || !note.endsWith("\n")) throw new Broken("a note without signatures");
  const text = note.slice(0, end + 1), lines = note.slice(end + 2).split("\n").slice(0, -1);
  if (/[\u0000-\u0009\u000b-\u001f]/.test(text) || lines.length < 1 || lines.length > SIGNATURES_MAX)
    throw new Broken("a note with control characters, or too many signatures");
  const found = lines.map((line) => {
    const first = line.indexOf(" "), second = line.indexOf(" ", first + 1);
    const name = first < 0 || second < 0 ? "" : line.slice(first + 1, second);
    if (line.slice(0, Math.max(0, first)) !== "\u2014" || !isName(name))
      throw new Broken("a signature line of another form");
    const signature = unbase64(line.slice(second + 1));
    if (signature.length < 5) throw new Broken("a signature line without a signature");
    return [name, signature];
  });
  return [text, found];
}

const keyId = (name, kind, key) => sha256(bytesOf(`${name}\n`), Uint8Array.of(kind), key).subarray(0, 4);

function checkpointOf(note, origin, key) {
  const [text, lines] = parsedNote(note);
  let good = 0;
  for (const [name, raw] of lines)
    if (name === origin && same(raw.subarray(0, 4), keyId(origin, 1, key))) {
      if (!ed25519Holds(key, bytesOf(text), raw.subarray(4)))
        throw new Broken(`the signature by ${origin} does not verify`);
      good += 1;
    }
  if (!good) throw new Broken(`no signature by ${origin} under this key`);
  const stated = text.split("\n");
  if (stated.length !== 4 || stated[3] || stated[0] !== origin || !isName(origin))
    throw new Broken(`not a checkpoint of ${origin}`);
  if (!/^(0|[1-9][0-9]{0,18})$/.test(stated[1]) || BigInt(stated[1]) > SIZE_MAX) throw new Broken(`${origin}: not a size`);
  const root = unbase64(stated[2]);
  if (root.length !== 32) throw new Broken(`${origin}: not a root`);
  return [BigInt(stated[1]), root];
}

class Policy {
  constructor(raw) {
    const said = parsed(raw), allowed = ["v", "logs", "quorum", "witnesses", "timestamp_roots"];
    if (!isObject(said) || said.get("v") !== 1 || [...said.keys()].some((name) => !allowed.includes(name)))
      throw new NotUnderstood("not a trust policy");
    for (const name of ["logs", "witnesses"]) if (!said.has(name)) said.set(name, []);
    listOf(new Map([["timestamp_roots", []], ...said]), "timestamp_roots", isText); // for `openssl ts`, not used here
    this.logs = new Map(listOf(said, "logs", isText).map((line) => Policy.key(line, 1)));
    this.witnesses = listOf(said, "witnesses", isText).map((line) => Policy.key(line, 4));
    this.quorum = said.has("quorum") ? said.get("quorum") : this.witnesses.length;
    if (!this.logs.size || typeof this.quorum !== "number" || this.quorum < 0 || this.quorum > this.witnesses.length)
      throw new NotUnderstood("a trust policy without a log, or with a quorum that cannot be");
    if (new Set(this.witnesses.map(([, key]) => hex(key))).size !== this.witnesses.length)
      throw new NotUnderstood("a trust policy in which a witness stands twice");
  }

  static key(line, kind) {
    const first = line.indexOf("+"), second = line.indexOf("+", first + 1);
    const name = line.slice(0, Math.max(0, first)), raw = unbase64(second < 0 ? "" : line.slice(second + 1));
    const identity = second < 0 ? "" : line.slice(first + 1, second);
    if (!isName(name) || raw.length !== 33 || raw[0] !== kind || identity !== hex(keyId(name, kind, raw.subarray(1))))
      throw new NotUnderstood("not a verifier key in the trust policy");
    return [name, raw.subarray(1)];
  }

  cosigned(note) {
    const [text, lines] = parsedNote(note), found = new Map();
    for (const [name, key] of this.witnesses)
      for (const [by, raw] of lines) {
        if (by !== name || !same(raw.subarray(0, 4), keyId(name, 4, key))) continue;
        let seconds = 0n;
        for (const byte of raw.subarray(4, 12)) seconds = (seconds << 8n) | BigInt(byte);
        const signed = bytesOf(`cosignature/v1\ntime ${seconds}\n${text}`);
        if (raw.length !== 76 || seconds <= 0n || seconds > SIZE_MAX || !ed25519Holds(key, signed, raw.subarray(12)))
          throw new Broken(`the cosignature by ${name} does not verify`);
        found.set(name, seconds);
      }
    return found;
  }
}

// --- the claims -----------------------------------------------------------------------------------------------------

function below(sorted, limit) {
  // how many of the numbers are less
  let from = 0, to = sorted.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if (sorted[middle] < limit) from = middle + 1;
    else to = middle;
  }
  return from;
}

const scopeKey = (origin, tenant, route) => JSON.stringify([origin, tenant, route]);

class Bundle {
  constructor(file, manifest, policy) {
    this.file = file;
    this.manifest = manifest;
    this.policy = policy;
    this.entries = 0;
    this.head = null;
    this.untold = [];
    this.counted = new Map();
    this.beats = new Map();
    this.parts = new Map();
  }

  async claims() {
    const made = [];
    for (const name of CLAIMS) {
      if (made[0]?.verdict === "FAIL") {
        made.push({ name, verdict: "UNKNOWN", detail: "integrity does not hold: nothing else can be told" });
        continue;
      }
      let verdict, detail;
      try {
        [verdict, detail] = await this[name]();
      } catch (error) {
        if (!(error instanceof Broken)) throw error;
        [verdict, detail] = ["FAIL", error.message];
      }
      made.push({ name, verdict, detail });
    }
    return made;
  }

  logName() {
    return `${textOf(this.manifest, "deployment")}/log`;
  }

  async integrity() {
    await this.checkFiles();
    const stated = unb64(textOf(this.manifest, "key"));
    const key = this.policy?.logs.get(this.logName()) ?? stated;
    const origins = new Map();
    for (const said of listOf(this.manifest, "origins", isObject, LISTED_MAX)) {
      const name = textOf(said, "origin"), whole = said.get("whole");
      if (origins.has(name) || typeof whole !== "boolean") throw new Broken(`${name} stands twice, or is neither whole nor not`);
      const note = textOf(said, "checkpoint"), [size, root] = checkpointOf(note, name, key);
      origins.set(name, { size, root, note, whole, tree: new Tree(), count: 0 });
    }
    await this.checkEntries(origins);
    if (!origins.size) throw new Broken("there is no entry here");
    const told = await this.checkLog(origins, key);
    await this.checkParts();
    const detail = `${this.entries} entries under ${origins.size} signed checkpoints; ${told}`;
    return this.untold.length ? ["UNKNOWN", [detail, ...this.untold].join("; ")] : ["PASS", detail];
  }

  async checkFiles() {
    const files = this.manifest.get("files");
    if (!isObject(files)) throw new Broken("files: expected an object");
    const there = [...this.file.members.keys()].filter((name) => name !== "manifest.json");
    const odd = [...there.filter((name) => !files.has(name)), ...[...files.keys()].filter((name) => !there.includes(name))];
    if (odd.length) throw new Broken(`${odd[0].slice(0, 80)} is missing, or not in the manifest`);
    for (const [name, said] of files) {
      const content = await this.file.content(name);
      if (!isObject(said)) throw new Broken(`${name}: expected size and sha256`);
      if (integerOf(said, "size") !== content.length || textOf(said, "sha256") !== hex(sha256(content)))
        throw new Broken(`${name} is not what the manifest says`);
    }
  }

  async checkEntries(origins) {
    const claimed = new Set(this.scopes().map((said) => scopeKey(...this.scope(said))));
    const hasParts = this.file.members.has("parts.jsonl");
    const lines = await this.file.lines("entries.jsonl"), paths = await this.file.lines("paths.jsonl");
    let before = [new Uint8Array(), -1];
    for (const [at, raw] of lines.entries()) {
      if (at >= paths.length) throw new Broken("there are fewer paths than entries");
      const said = parsed(raw), path = parsed(paths[at]);
      if (!isObject(said) || !Array.isArray(path)) throw new Broken("an entry is no object, or a path no list");
      const name = textOf(said, "origin"), seq = integerOf(said, "seq"), here = [bytesOf(name), seq];
      const order = compared(here[0], before[0]) || here[1] - before[1];
      if (order <= 0) throw new Broken(`${name}, ${seq}: entries are not in their order, or one is there twice`);
      before = here;
      const origin = origins.get(name);
      if (!origin) throw new Broken(`${name}, ${seq}: no checkpoint of its ledger is here`);
      this.checkEntry(origin, name, seq, raw, path.map((node) => unb64(node)));
      this.note(said, name, seq, claimed, hasParts);
    }
    if (paths.length > lines.length) throw new Broken("there are more paths than entries");
    for (const [name, origin] of origins) {
      if (!origin.count) throw new Broken(`${name}: there is a checkpoint and no entry`);
      if (origin.whole && (BigInt(origin.tree.size) !== origin.size || !same(origin.tree.root(), origin.root)))
        throw new Broken(`${name}: the entries do not make the tree that was signed`);
    }
  }

  checkEntry(origin, name, seq, raw, path) {
    this.entries += 1;
    if (origin.whole) {
      if (path.length || seq !== origin.count)
        throw new Broken(`${name}, ${seq}: the ledger is said to be whole, and is not`);
      origin.tree.add(leafOf(raw));
    } else checkPath(leafOf(raw), BigInt(seq), origin.size, path, origin.root);
    origin.count += 1;
  }

  note(said, name, seq, claimed, hasParts) {
    const tenant = said.get("tenant"), route = said.get("route") ?? null;
    if (isText(tenant) && (route === null || isText(route)) && claimed.has(scopeKey(name, tenant, route))) {
      const key = scopeKey(name, tenant, route);
      if (!this.counted.has(key)) this.counted.set(key, new Set());
      this.counted.get(key).add(integerOf(said, "scope_seq"));
    }
    const place = JSON.stringify([name, seq]), scopes = said.get("scopes"), parts = said.get("parts");
    if (said.get("kind") === "heartbeat" && Array.isArray(scopes)) this.beats.set(place, scopes);
    if (hasParts && Array.isArray(parts) && parts.length) this.parts.set(place, parts);
  }

  async checkLog(origins, key) {
    if (!this.file.members.has("log.json")) return "their place in the log of logs is not shown";
    const said = parsed(await this.file.content("log.json", MANIFEST_BYTES_MAX)), name = this.logName();
    if (!isObject(said) || textOf(said, "name") !== name) throw new Broken(`log.json is not about ${name}`);
    const note = textOf(said, "checkpoint"), [size, root] = checkpointOf(note, name, key);
    const leaves = listOf(said, "leaves", isObject), names = leaves.map((leaf) => textOf(leaf, "origin"));
    if (JSON.stringify(names) !== JSON.stringify([...origins.keys()]))
      throw new Broken("log.json is about other ledgers than the manifest");
    for (const leaf of leaves) {
      const origin = leaf.get("origin"), index = integerOf(leaf, "index"), raw = bytesOf(textOf(leaf, "leaf"));
      const stated = parsed(raw);
      if (!isObject(stated) || integerOf(stated, "v") !== 1 || integerOf(stated, "n") !== index)
        throw new Broken(`${origin}: no leaf ${index} of the log of logs`);
      const about = ["log", "kind", "origin"].map((each) => textOf(stated, each));
      if (about[0] !== name || about[1] !== "checkpoint" || about[2] !== origin)
        throw new Broken(`${origin}: the leaf of the log of logs is about something else`);
      if (textOf(stated, "note") !== origins.get(origin).note || BigInt(integerOf(stated, "size")) !== origins.get(origin).size)
        throw new Broken(`${origin}: the leaf of the log of logs holds another checkpoint`);
      checkPath(leafOf(raw), BigInt(index), size, listOf(leaf, "path", isText).map((node) => unb64(node)), root);
    }
    this.head = note;
    return `in the log of logs of ${size} leaves`;
  }

  async checkParts() {
    if (!this.file.members.has("parts.jsonl")) return;
    let before = [new Uint8Array(), -1, -1];
    for (const raw of await this.file.lines("parts.jsonl")) {
      const said = parsed(raw);
      if (!isObject(said)) throw new Broken("a line of parts.jsonl is no object");
      const origin = textOf(said, "origin"), seq = integerOf(said, "seq"), index = integerOf(said, "index");
      const name = textOf(said, "name"), here = [bytesOf(origin), seq, index];
      if ((compared(here[0], before[0]) || seq - before[1] || index - before[2]) <= 0)
        throw new Broken("parts.jsonl is not in its order, or a part is there twice");
      before = here;
      const found = (this.parts.get(JSON.stringify([origin, seq])) ?? []).filter(
        (part) => isObject(part) && part.get("name") === name && part.get("index") === index,
      );
      if (found.length !== 1) throw new Broken(`${origin}, ${seq}: the entry states no such part`);
      await this.checkPart(`${origin}, ${seq}, part ${name}`, name, found[0], said);
    }
  }

  async checkPart(where, name, part, said) {
    const opening = said.get("opening") ?? null, dek = said.get("dek") ?? null;
    if ((opening === null) === (dek === null)) throw new Broken(`${where}: either an opening or a key belongs to it`);
    const secret = unb64(opening ?? dek), committed = part.get(dek === null ? "opening_commit" : "plain_commit") ?? null;
    if (dek !== null && !same(new Hmac(secret).update(bytesOf("answerable/dek/v1")).digest(), unb64(part.get("dek_commit"))))
      throw new Broken(`${where}: the key is not the one that the entry commits to`);
    const label = bytesOf(name), length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, label.length, true);
    const running = new Hmac(secret).update(joined(bytesOf("answerable/plain/v1"), length, label));
    running.update(await this.file.content(textOf(said, "file")));
    if (committed === null) this.untold.push(`${where}: the entry does not commit to its plaintext`);
    else if (!same(running.digest(), unb64(committed)))
      throw new Broken(`${where}: the plaintext is not the one that the entry commits to`);
  }

  scopes() {
    return listOf(this.manifest, "scopes", isObject, LISTED_MAX);
  }

  scope(said) {
    const route = said.get("route") ?? null;
    return [textOf(said, "origin"), textOf(said, "tenant"), route === null ? null : textOf(said, "route")];
  }

  completeness() {
    const scopes = this.scopes();
    if (!scopes.length) return ["UNKNOWN", "nothing is claimed to be complete"];
    const ordered = new Map();
    for (const said of scopes) {
      const scope = this.scope(said), low = this.bound(said, "from", scope), high = this.bound(said, "to", scope);
      if (low > high) throw new Broken(`${scope[0]}: a scope ends before it begins`);
      const key = scopeKey(...scope), known = this.counted.get(key) ?? new Set();
      if (!ordered.has(key)) ordered.set(key, Float64Array.from(known).sort());
      if (below(ordered.get(key), high) - below(ordered.get(key), low) === high - low) continue;
      let number = low;
      while (known.has(number)) number += 1;
      throw new Broken(`${scope[0]}: ${scope[1]}, ${scope[2]}: entry ${number} of the scope is not here`);
    }
    return ["PASS", `held whole: ${scopes.length}, heartbeat to heartbeat; of the ledgers named, no others`];
  }

  bound(said, name, scope) {
    const bound = said.get(name) ?? null;
    if (bound === null && name === "from") return 0;
    if (!isObject(bound)) throw new Broken(`${scope[0]}: ${name} names no heartbeat`);
    const seq = integerOf(bound, "seq"), count = integerOf(bound, "n");
    for (const stated of this.beats.get(JSON.stringify([scope[0], seq])) ?? [])
      if (Array.isArray(stated) && stated.length === 3 && stated[0] === scope[1] && stated[1] === scope[2] && stated[2] === count)
        return count;
    throw new Broken(`${scope[0]}, ${seq}: no heartbeat that states ${count} entries of ${scope[1]}, ${scope[2]}`);
  }

  cosigned() {
    return this.policy === null || this.head === null ? new Map() : this.policy.cosigned(this.head);
  }

  freshness() {
    const quorum = this.policy?.quorum ?? 0;
    if (quorum < 1) return ["UNKNOWN", "no witness of yours says when it existed: times are the operator's own"];
    const seconds = [...this.cosigned().values()].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    if (seconds.length < quorum) return ["UNKNOWN", `${seconds.length} of your witnesses cosigned, ${quorum} are asked for`];
    const moment = new Date(Number(seconds[quorum - 1]) * 1000);
    const when = Number.isNaN(moment.getTime()) ? `second ${seconds[quorum - 1]} since 1970` : moment.toISOString();
    return ["PASS", `existed at ${when}, say ${quorum} of your witnesses`];
  }

  authenticity() {
    if (this.policy === null) return ["UNKNOWN", "a bundle that brings its own key proves nothing: bring a trust policy"];
    const trusted = this.policy.logs.get(this.logName());
    if (!trusted || !same(trusted, unb64(textOf(this.manifest, "key"))))
      throw new Broken("it is not signed by a key that your trust policy names for this log");
    const found = this.cosigned();
    if (found.size < this.policy.quorum)
      throw new Broken(`${found.size} of your witnesses cosigned, ${this.policy.quorum} are asked for`);
    return ["PASS", `signed by the key you trust; cosigned by ${[...found.keys()].sort().join(", ") || "nobody"}`];
  }
}

async function inflater() {
  if (typeof process !== "undefined" && process.versions?.node) {
    const { inflateRawSync } = await import("node:zlib");
    return async (data, size) => {
      // `info` tells how much was read: what follows the end belongs to no content
      const { buffer, engine } = inflateRawSync(data, { maxOutputLength: size + 1, info: true });
      if (engine.bytesWritten !== data.length) throw new Error("it does not end where it says");
      return buffer;
    };
  }
  return async (data, size) => {
    const made = new Uint8Array(size);
    let at = 0;
    const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    for (let reader = stream.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) return at === size ? made : made.subarray(0, at);
      if (at + value.length > size) throw new Error("it is longer than it says");
      made.set(value, at);
      at += value.length;
    }
  };
}

/** The report on a bundle's bytes; `policy` is the text of a trust policy. Throws where the policy is none. */
export async function verifyBundle(bytes, policy) {
  let trust = null;
  if (policy !== undefined && policy !== null) {
    try {
      trust = new Policy(isText(policy) ? bytesOf(policy) : policy);
    } catch (error) {
      throw new NotUnderstood(error.message);
    }
  }
  try {
    const file = new Container(bytes, await inflater());
    let manifest;
    try {
      manifest = parsed(await file.content("manifest.json", MANIFEST_BYTES_MAX));
    } catch (error) {
      throw error instanceof Broken ? new NotUnderstood(error.message) : error;
    }
    if (!isObject(manifest) || manifest.get("format") !== FORMAT)
      throw new NotUnderstood(`not a bundle of the format ${FORMAT}`);
    const bundle = new Bundle(file, manifest, trust), claims = await bundle.claims();
    const failed = claims.some((claim) => claim.verdict === "FAIL");
    return { claims, entries: bundle.entries, exit: failed ? 1 : claims[0].verdict === "PASS" ? 0 : 2 };
  } catch (error) {
    if (!(error instanceof NotUnderstood)) throw error;
    const claims = CLAIMS.map((name) => ({ name, verdict: "UNKNOWN", detail: error.message }));
    return { claims, entries: 0, exit: 2 };
  }
}

async function main() {
  const { readFileSync } = await import("node:fs");
  const words = process.argv.slice(2), at = words.indexOf("--trust"), asJson = words.includes("--json");
  const trust = at < 0 ? undefined : words.splice(at, 2)[1];
  const [path] = words.filter((word) => word !== "--json");
  if (path === undefined || (at >= 0 && trust === undefined)) {
    console.error("usage: node verify_bundle.mjs BUNDLE.zip [--trust policy.json] [--json]");
    return 2;
  }
  let report;
  try {
    report = await verifyBundle(new Uint8Array(readFileSync(path)), trust === undefined ? undefined : readFileSync(trust));
  } catch (error) {
    console.error(`verify_bundle: ${error.message}`);
    return 2;
  }
  if (asJson) {
    console.log(JSON.stringify(report));
    return report.exit;
  }
  for (const { name, verdict, detail } of report.claims) console.log(`${verdict.padEnd(8)}${name.padEnd(14)}${detail}`);
  console.log(`${report.entries} entries; ${["holds", "DOES NOT HOLD", "cannot tell"][report.exit]}`);
  console.log("Not shown: calls that never reached the gateway, ledgers that are not named here, what was changed");
  console.log("before it was signed and cosigned. summary.txt and decisions.csv are for reading.");
  return report.exit;
}

async function isProgram() {
  if (typeof process === "undefined" || !process.versions?.node || !process.argv[1]) return false;
  const { pathToFileURL } = await import("node:url"), { existsSync, realpathSync } = await import("node:fs");
  return existsSync(process.argv[1]) && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href;
}

if (await isProgram()) process.exitCode = await main();
