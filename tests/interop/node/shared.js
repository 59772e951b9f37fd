// The service definition and the command line, for both programs.
'use strict';

const path = require('path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const root = path.join(__dirname, '..', 'proto');
const definition = loader.loadSync('interop/test.proto', { includeDirs: [root], keepCase: true, defaults: true });

// The value of --name=value or --name value.
function arg(name, fallback) {
  const at = process.argv.findIndex((word) => word === `--${name}` || word.startsWith(`--${name}=`));
  if (at < 0) return fallback;
  const word = process.argv[at];
  return word.includes('=') ? word.slice(word.indexOf('=') + 1) : process.argv[at + 1];
}

module.exports = { testing: grpc.loadPackageDefinition(definition).grpc.testing, arg };
