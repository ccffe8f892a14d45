// Makes `dist`, or the folder that is named, of the sources. The same sources give the same bytes; a test compares them with what is committed.
import { build } from "esbuild";
import { cpSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "dist");

mkdirSync(out, { recursive: true });
await build({
  absWorkingDir: here,
  entryPoints: [
    { in: "src/main.ts", out: "page" },
    { in: "src/page.css", out: "page" },
  ],
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  charset: "utf8",
  // what is not ours says whose it is, wherever it goes
  banner: { js: `/*! With marked:\n${readFileSync(join(here, "node_modules/marked/LICENSE"), "utf8").trim().replaceAll("*/", "* /")}\n*/` },
});
for (const name of ["index.html", "icon.svg"]) cpSync(join(here, "public", name), join(out, name));
