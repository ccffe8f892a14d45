// Builds the policy with one of two interpreters: `npm install && npm run build`, or then `npm run build:spidermonkey`. Node 20 or newer.
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const source = here('policy.js');
const witPath = here('../../../wit');
const world = 'llambo:policy/balancer@0.1.0';

// policies get no WASI, and a module that asks for any of it is refused
const builders = {
  async quickjs() {
    const { componentize } = await import('componentize-qjs');
    const jsSource = await readFile(source, 'utf8');
    return componentize({ jsSource, jsPath: source, witPath, world, stubWasi: true, sync: true });
  },
  async spidermonkey() {
    const { componentize } = await import('@bytecodealliance/componentize-js');
    const disableFeatures = ['stdio', 'random', 'clocks', 'http', 'fetch-event'];
    return componentize({ sourcePath: source, witPath, worldName: world, disableFeatures });
  },
};

const [interpreter = 'quickjs'] = process.argv.slice(2);
const { component } = await builders[interpreter]();
const folder = here('../../target');
const output = `${folder}/latency-aware-js-${interpreter}.wasm`;
await mkdir(folder, { recursive: true });
await writeFile(output, component);
console.log(`${output}: ${component.length} bytes`);
