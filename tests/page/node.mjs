// The vectors under node: node --experimental-default-type=module tests/page/node.mjs
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = new URL("../../", import.meta.url);
const names = ["bytes", "forms", "links", "seal", "proof", "ed25519", "hash"];
const of = (path) => import(new URL(path, root).href);
const modules = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await of(`src/http/page/verify/${name}.js`)])));
const { run } = await of("tests/page/vectors.js");
const found = await run(modules, async (path) => readFileSync(fileURLToPath(new URL(path, root)), "utf8"));
console.log(`${found.passed} passed, ${found.failed} failed`);
found.failures.forEach((failure) => console.error(failure));
process.exitCode = found.failed || found.passed < 1000 ? 1 : 0;
