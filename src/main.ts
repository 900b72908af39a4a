// The one entry, of `bun src/main.ts` and of the binary alike: hands the command line over.
import { main } from "./cli/main.ts";

process.exit(await main(process.argv.slice(2)));
