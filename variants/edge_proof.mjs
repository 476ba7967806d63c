// Answers rows with a model in ONNX Runtime's web (WebAssembly) or node build: node edge_proof.mjs PLAN
//
// PLAN is a JSON file: {packages, runtime, model, output, batches: [{input: {type, shape, file}}]}. The first output's
// numbers of all batches go to `output` as float32; the versions that ran go to standard output as JSON.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int64: BigInt64Array, uint64: BigUint64Array, int32: Int32Array,
  uint32: Uint32Array, int16: Int16Array, uint16: Uint16Array, int8: Int8Array, uint8: Uint8Array, bool: Uint8Array,
};

const plan = JSON.parse(readFileSync(process.argv[2], "utf8"));
const load = createRequire(join(plan.packages, "package.json"));
const ort = load(plan.runtime);
if (plan.runtime === "onnxruntime-web") {
  ort.env.wasm.numThreads = 1;
}
const provider = plan.runtime === "onnxruntime-web" ? "wasm" : "cpu";
const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(plan.model)), {
  executionProviders: [provider],
});
const parts = [];
for (const batch of plan.batches) {
  const feeds = {};
  for (const [name, { type, shape, file }] of Object.entries(batch)) {
    const bytes = readFileSync(file);
    const copy = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
    feeds[name] = new ort.Tensor(type, new ARRAYS[type](copy), shape);
  }
  const answers = await session.run(feeds);
  parts.push(Buffer.from(Float32Array.from(answers[session.outputNames[0]].data, Number).buffer));
}
writeFileSync(plan.output, Buffer.concat(parts));
const versions = ort.env.versions ?? {};
const version = versions[provider === "wasm" ? "web" : "node"] ?? versions.common ?? "unknown";
console.log(JSON.stringify({ version, node: process.versions.node }));
