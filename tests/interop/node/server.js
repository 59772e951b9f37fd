// The interop test service in grpc-js, with the extra features of PROTOCOL.md.
// NODE_PATH names the folder the packages were installed in; PROTO_ROOT the folder of the .proto files.
'use strict';

const grpc = require('@grpc/grpc-js');
const { testing, arg } = require('./shared');

const INITIAL = 'x-grpc-test-echo-initial';
const TRAILING = 'x-grpc-test-echo-trailing-bin';
const cancelled = new Set();

const first = (metadata, name) => metadata.get(name)[0];
const body = (size) => ({ payload: { body: Buffer.alloc(size) } });
const sleep = (us) => new Promise((done) => setTimeout(done, us / 1000));

// Sends initial metadata where asked for; gives the trailers, and a status error where one is asked for.
function before(call) {
  const trailers = new grpc.Metadata();
  const initial = first(call.metadata, INITIAL);
  if (initial !== undefined) {
    const metadata = new grpc.Metadata();
    metadata.set(INITIAL, initial);
    call.sendMetadata(metadata);
  }
  const trailing = first(call.metadata, TRAILING);
  if (trailing !== undefined) trailers.set(TRAILING, trailing);
  if (first(call.metadata, 'x-test-report') !== undefined) {
    const deadline = call.getDeadline();
    const left = deadline === Infinity ? 'none' : String(Math.trunc(Number(deadline) - Date.now()));
    trailers.set('x-test-remaining-ms', left);
  }
  const asked = first(call.metadata, 'x-test-was-cancelled');
  if (asked !== undefined) trailers.set('x-test-cancelled', cancelled.has(asked) ? 'yes' : 'no');
  const details = first(call.metadata, 'x-test-details-bin');
  let error = null;
  if (details !== undefined) {
    trailers.set('grpc-status-details-bin', details);
    error = { code: grpc.status.FAILED_PRECONDITION, details: 'with details', metadata: trailers };
  }
  return { trailers, error };
}

function statusError(request, trailers) {
  const status = request.response_status;
  if (!status || !status.code) return null;
  return { code: status.code, details: status.message, metadata: trailers };
}

function unary(call, callback, answer) {
  const { trailers, error } = before(call);
  const wrong = error || statusError(call.request, trailers);
  if (wrong) callback(wrong);
  else callback(null, answer, trailers);
}

async function outputs(call, request) {
  for (const parameters of request.response_parameters) {
    if (parameters.interval_us) await sleep(parameters.interval_us);
    if (call.cancelled) return;
    call.write(body(parameters.size));
  }
}

const handlers = {
  EmptyCall: (call, callback) => unary(call, callback, {}),
  UnaryCall: (call, callback) => unary(call, callback, body(call.request.response_size)),

  async StreamingOutputCall(call) {
    const { trailers, error } = before(call);
    const wrong = error || statusError(call.request, trailers);
    if (wrong) return void call.emit('error', wrong);
    await outputs(call, call.request);
    call.end(trailers);
  },

  StreamingInputCall(call, callback) {
    const { trailers, error } = before(call);
    if (error) return callback(error);
    let total = 0;
    call.on('data', (request) => (total += request.payload ? request.payload.body.length : 0));
    call.on('end', () => callback(null, { aggregated_payload_size: total }, trailers));
  },

  FullDuplexCall(call) {
    const { trailers, error } = before(call);
    if (error) return void call.emit('error', error);
    const id = first(call.metadata, 'x-test-id');
    call.on('cancelled', () => cancelled.add(id));
    let order = Promise.resolve();
    let failed = false;
    call.on('data', (request) => {
      order = order.then(() => {
        if (failed) return undefined;
        const wrong = statusError(request, trailers);
        if (!wrong) return outputs(call, request);
        failed = true;
        call.emit('error', wrong);
        return undefined;
      });
    });
    call.on('end', () => order.then(() => failed || call.end(trailers)));
  },
};

const options = {
  'grpc.max_receive_message_length': 8 << 20,
  'grpc.max_metadata_size': 1 << 20,
};
const streams = Number(arg('max_streams', '0'));
if (streams) options['grpc.max_concurrent_streams'] = streams;
const server = new grpc.Server(options);
server.addService(testing.TestService.service, handlers);
server.bindAsync(`${process.env.TOWPATH_TEST_HOST || '127.0.0.1'}:${arg('port', '0')}`, grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`listening ${port}`);
});
