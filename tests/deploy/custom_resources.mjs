// Judges custom resources by the models that the npm packages @kubernetes-models/* carry.
//
//   node custom_resources.mjs NODE_MODULES < objects.json > problems.json
//
// The compiled validators let unknown fields pass. They read every field that they know, though: each object is given
// to them as a proxy that notes what is read, and what nobody read is a field that the model does not have.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const packages = {
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
  "gateway.networking.k8s.io": "gateway-api",
};
const [modules] = process.argv.slice(2);
const problems = [];

function noted(node, where, unread) {
  if (node === null || typeof node !== "object") return node;
  const children = new Map();
  for (const key of Object.keys(node)) {
    const path = `${where}.${key}`;
    unread.add(path);
    children.set(key, noted(node[key], path, unread));
  }
  return new Proxy(node, {
    get(target, key) {
      if (!children.has(key)) return Reflect.get(target, key);
      unread.delete(`${where}.${key}`);
      return children.get(key);
    },
  });
}

for (const item of JSON.parse(readFileSync(0, "utf8"))) {
  const [group, version] = item.apiVersion.split("/");
  const path = join(modules, "@kubernetes-models", packages[group], group, version, `${item.kind}.js`);
  const model = (await import(pathToFileURL(path)))[item.kind];
  const unread = new Set();
  const name = `${item.kind} ${item.metadata.name}`;
  const known = ["apiVersion", "kind", "metadata", "spec"];
  problems.push(...Object.keys(item).filter((key) => !known.includes(key)).map((key) => `${name}.${key} is no field`));
  try {
    // The constructor copies what it is given, and so reads it all: the proxies come afterwards.
    Object.assign(new model({}), { ...noted(item, name, unread) }).validate();
    // What lies below an unread field has not been read either; the topmost says it all.
    const found = [...unread].filter((path) => ![...unread].some((other) => path.startsWith(`${other}.`)));
    problems.push(...found.map((path) => `${path} is no field`));
  } catch (error) {
    problems.push(`${name}: ${error.message}`);
  }
}
console.log(JSON.stringify(problems));
