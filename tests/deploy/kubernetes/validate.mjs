// Reads a JSON list of {id, manifest} and prints a JSON object of what is wrong with each: {id: [text]}.
// A kind that no model describes has null.
import { readFileSync } from "node:fs";

const models = {
  "monitoring.coreos.com": (path) => `@kubernetes-models/prometheus-operator/${path}`,
};

async function model({ apiVersion, kind }) {
  const path = `${apiVersion}/${kind}`;
  const group = apiVersion.split("/")[0];
  try {
    return (await import((models[group] ?? ((p) => `kubernetes-models/${p}`))(path)))[kind];
  } catch (error) {
    if (error.code === "ERR_PACKAGE_PATH_NOT_EXPORTED" || error.code === "ERR_MODULE_NOT_FOUND") return undefined;
    throw error;
  }
}

const faults = {};
for (const { id, manifest } of JSON.parse(readFileSync(0, "utf8"))) {
  const Model = await model(manifest);
  faults[id] = Model ? [] : null;
  try {
    if (Model) new Model(manifest).validate();
  } catch (error) {
    faults[id] = [error.message];
  }
}
console.log(JSON.stringify(faults));
