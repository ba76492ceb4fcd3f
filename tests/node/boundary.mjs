// Speaks the guest boundary of `sdk/abi` from JavaScript, so that a rules module runs in V8. Knows no game and no journal: a test hands over a
// file of calls and gets a file of answers.
//
//   node boundary.mjs MODULE.wasm CALLS ANSWERS
//
// CALLS is a sequence of: u8 call, u32 length (little-endian), that many bytes. Calls: 1 init, 2 tick, 3 save (no bytes), 4 restore. ANSWERS has for
// each, in order, u32 length and the bytes of the span that the module returned.

import { readFileSync, writeFileSync } from "node:fs";

const CALLS = { 1: "holeshot_init", 2: "holeshot_tick", 3: "holeshot_save", 4: "holeshot_restore" };

const [modulePath, callsPath, answersPath] = process.argv.slice(2);
if (answersPath === undefined) {
  throw new Error("usage: node boundary.mjs MODULE.wasm CALLS ANSWERS");
}

let memory;
const text = new TextDecoder();
const log = (level, address, length) => {
  console.error(`log ${level}: ${text.decode(new Uint8Array(memory.buffer, address >>> 0, length >>> 0))}`);
};
const { instance } = await WebAssembly.instantiate(readFileSync(modulePath), { holeshot: { log } });
const module = instance.exports;
memory = module.memory;
module._initialize?.();
if (module.holeshot_abi_version() >>> 16 !== 1) {
  throw new Error(`the module speaks version ${module.holeshot_abi_version()} of the boundary`);
}

// The buffer for records: asked for again only if a record is longer than what was asked for last.
let buffer = 0;
let bufferBytes = 0;

function call(number, record) {
  const name = CALLS[number];
  if (name === undefined) {
    throw new Error(`there is no call ${number}`);
  }
  let span;
  if (number === 3) {
    span = module[name]();
  } else {
    if (record.length > bufferBytes) {
      bufferBytes = Math.max(512, record.length);
      buffer = module.holeshot_buffer(bufferBytes) >>> 0;
      if (buffer === 0 || buffer % 8 !== 0) {
        throw new Error(`holeshot_buffer returned ${buffer}`);
      }
    }
    // Made anew each time: a memory that grows gets another array.
    new Uint8Array(memory.buffer).set(record, buffer);
    span = module[name](record.length);
  }
  const address = Number(BigInt.asUintN(32, span >> 32n));
  const length = Number(BigInt.asUintN(32, span));
  return Buffer.from(new Uint8Array(memory.buffer, length === 0 ? 0 : address, length));
}

const calls = readFileSync(callsPath);
const answers = [];
for (let at = 0; at < calls.length; ) {
  const length = calls.readUInt32LE(at + 1);
  const answer = call(calls[at], calls.subarray(at + 5, at + 5 + length));
  const header = Buffer.alloc(4);
  header.writeUInt32LE(answer.length);
  answers.push(header, answer);
  at += 5 + length;
}
writeFileSync(answersPath, Buffer.concat(answers));
