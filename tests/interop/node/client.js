// The interop cases with a grpc-js client. Prints PASS, FAIL or SKIP with the case's name on each line.
'use strict';

const assert = require('assert');
const crypto = require('crypto');
const grpc = require('@grpc/grpc-js');
const { testing, arg } = require('./shared');

const REQUEST_SIZES = [27182, 8, 1828, 45904];
const RESPONSE_SIZES = [31415, 9, 2653, 58979];
const INITIAL = 'x-grpc-test-echo-initial';
const TRAILING = 'x-grpc-test-echo-trailing-bin';
// google.rpc.Status{code: 9, message: "with details", details: [Any{type_url: "a/b", value: ff 00}]}
const DETAILS = Buffer.from('0809120c776974682064657461696c731a090a03612f621202ff00', 'hex');
const OPTIONS = { 'grpc.max_receive_message_length': 8 << 20, 'grpc.max_metadata_size': 1 << 20 };

class Skip extends Error {}

const address = arg('address');
const stub = new testing.TestService(address, grpc.credentials.createInsecure(), OPTIONS);
const payload = (size) => ({ body: Buffer.alloc(size) });
const deadline = (ms) => ({ deadline: Date.now() + ms });
const output = (size, request, more = {}) => ({
  response_parameters: size === undefined ? [] : [{ size, ...more }],
  payload: payload(request || 0),
});

// Everything one call brought: { error, response, initial, trailing }.
function call(method, request, metadata = new grpc.Metadata(), options = deadline(20000), on = stub) {
  return new Promise((done) => {
    const seen = {};
    const running = on[method](request, metadata, options, (error, response) => {
      Object.assign(seen, { error, response, returned: true });
      if (seen.trailing) done(seen);
    });
    running.on('metadata', (initial) => (seen.initial = initial));
    running.on('status', (status) => {
      seen.trailing = status.metadata;
      if (seen.returned) done(seen);
    });
  });
}

// A stream's sizes and end: { sizes, error, initial, trailing }.
function collect(stream, each = () => {}) {
  return new Promise((done) => {
    const seen = { sizes: [], error: null };
    stream.on('metadata', (initial) => (seen.initial = initial));
    stream.on('data', (response) => {
      seen.sizes.push(response.payload ? response.payload.body.length : 0);
      each(seen.sizes.length);
    });
    stream.on('error', (error) => (seen.error = error));
    stream.on('status', (status) => {
      seen.trailing = status.metadata;
      setImmediate(() => done(seen));
    });
  });
}

function metadataOf(pairs) {
  const metadata = new grpc.Metadata();
  for (const [name, value] of Object.entries(pairs)) metadata.set(name, value);
  return metadata;
}

function ok(seen) {
  if (seen.error) throw seen.error;
  return seen;
}

function failed(seen, code, details) {
  assert(seen.error, `succeeded, expected status ${code}`);
  assert.strictEqual(seen.error.code, code, `status ${seen.error.code} (${seen.error.details})`);
  if (details !== undefined) assert.strictEqual(seen.error.details, details);
}

async function unary(request, response, on) {
  const seen = ok(await call('UnaryCall', { response_size: response, payload: payload(request) }, undefined, undefined, on));
  assert.strictEqual(seen.response.payload.body.length, response);
}

async function echo(initial, trailing) {
  const metadata = metadataOf({ [INITIAL]: initial, [TRAILING]: trailing });
  const one = ok(await call('UnaryCall', { response_size: 314159, payload: payload(271828) }, metadata));
  const stream = stub.FullDuplexCall(metadata, deadline(20000));
  const ended = collect(stream);
  stream.write(output(314159, 271828));
  stream.end();
  const two = ok(await ended);
  assert.deepStrictEqual(two.sizes, [314159]);
  for (const seen of [one, two]) {
    assert.deepStrictEqual(seen.initial.get(INITIAL), [initial]);
    assert.deepStrictEqual(seen.trailing.get(TRAILING), [trailing]);
  }
}

async function statusOf(message) {
  const status = { code: 2, message };
  failed(await call('UnaryCall', { response_status: status }), 2, message);
  const stream = stub.FullDuplexCall(deadline(10000));
  const ended = collect(stream);
  stream.write({ response_status: status });
  stream.end();
  failed(await ended, 2, message);
}

async function cancelSeen() {
  const id = crypto.randomUUID();
  const stream = stub.FullDuplexCall(metadataOf({ 'x-test-id': id }), deadline(20000));
  const ended = collect(stream, () => stream.cancel());
  const request = output(31415, 27182);
  request.response_parameters.push({ size: 1, interval_us: 1000000 });
  stream.write(request);
  failed(await ended, grpc.status.CANCELLED);
  for (let turn = 0; turn < 100; turn++) {
    const seen = ok(await call('EmptyCall', {}, metadataOf({ 'x-test-was-cancelled': id })));
    if (seen.trailing.get('x-test-cancelled')[0] === 'yes') return;
    await new Promise((done) => setTimeout(done, 20));
  }
  throw new Error('the server never saw the cancel');
}

const cases = {
  empty_unary: async () => void ok(await call('EmptyCall', {})),
  async cacheable_unary() {
    throw new Skip('grpc-js has no GET requests');
  },
  large_unary: () => unary(271828, 314159),
  async client_compressed_unary() {
    throw new Skip('grpc-js compresses a whole channel, not single calls');
  },
  async server_compressed_unary() {
    for (const value of [true, false]) {
      const request = { response_compressed: { value }, response_size: 314159, payload: payload(271828) };
      assert.strictEqual(ok(await call('UnaryCall', request)).response.payload.body.length, 314159);
    }
  },
  client_streaming: () =>
    new Promise((done, fail) => {
      const stream = stub.StreamingInputCall(deadline(10000), (error, response) => {
        if (error) return fail(error);
        return response.aggregated_payload_size === 74922 ? done() : fail(new Error('wrong sum'));
      });
      for (const size of REQUEST_SIZES) stream.write({ payload: payload(size) });
      stream.end();
    }),
  async client_compressed_streaming() {
    throw new Skip('grpc-js compresses a whole channel, not single messages');
  },
  async server_streaming() {
    const request = { response_parameters: RESPONSE_SIZES.map((size) => ({ size })) };
    const seen = ok(await collect(stub.StreamingOutputCall(request, deadline(10000))));
    assert.deepStrictEqual(seen.sizes, RESPONSE_SIZES);
  },
  async server_compressed_streaming() {
    const parameters = [
      { size: 31415, compressed: { value: true } },
      { size: 92653, compressed: { value: false } },
    ];
    const seen = ok(await collect(stub.StreamingOutputCall({ response_parameters: parameters }, deadline(10000))));
    assert.deepStrictEqual(seen.sizes, [31415, 92653]);
  },
  async ping_pong() {
    const stream = stub.FullDuplexCall(deadline(20000));
    const next = (at) => {
      if (at < RESPONSE_SIZES.length) stream.write(output(RESPONSE_SIZES[at], REQUEST_SIZES[at]));
      else stream.end();
    };
    const ended = collect(stream, next);
    next(0);
    assert.deepStrictEqual(ok(await ended).sizes, RESPONSE_SIZES);
  },
  async empty_stream() {
    const stream = stub.FullDuplexCall(deadline(10000));
    const ended = collect(stream);
    stream.end();
    assert.deepStrictEqual(ok(await ended).sizes, []);
  },
  custom_metadata: () => echo('test_initial_metadata_value', Buffer.from('ababab', 'hex')),
  status_code_and_message: () => statusOf('test status message'),
  special_status_message: () => statusOf('\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \u{1f608}\t\n'),
  unimplemented_method: async () => failed(await call('UnimplementedCall', {}), grpc.status.UNIMPLEMENTED),
  async unimplemented_service() {
    const other = new testing.UnimplementedService(address, grpc.credentials.createInsecure());
    failed(await call('UnimplementedCall', {}, undefined, undefined, other), grpc.status.UNIMPLEMENTED);
    other.close();
  },
  cancel_after_begin: () =>
    new Promise((done, fail) => {
      const stream = stub.StreamingInputCall(deadline(10000), (error) => {
        if (error && error.code === grpc.status.CANCELLED) done();
        else fail(new Error(`not CANCELLED: ${error}`));
      });
      setImmediate(() => stream.cancel());
    }),
  cancel_after_first_response: cancelSeen,
  async timeout_on_sleeping_server() {
    const stream = stub.FullDuplexCall(deadline(1));
    const ended = collect(stream);
    stream.write(output(1, 27182, { interval_us: 1000000 }));
    failed(await ended, grpc.status.DEADLINE_EXCEEDED);
  },
  async rpc_soak() {
    for (let turn = 0; turn < 10; turn++) await unary(271828, 314159);
  },
  async channel_soak() {
    for (let turn = 0; turn < 10; turn++) {
      const options = { ...OPTIONS, 'grpc.use_local_subchannel_pool': 1 };
      const one = new testing.TestService(address, grpc.credentials.createInsecure(), options);
      await unary(271828, 314159, one);
      one.close();
    }
  },

  // Beyond the official list; see PROTOCOL.md.

  big_metadata: () => echo('m'.repeat(20000), crypto.randomBytes(22500)),
  async binary_metadata() {
    const every = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
    for (const value of [Buffer.from([0]), every, Buffer.from('a,b, c'), crypto.randomBytes(1001)]) await echo('x', value);
  },
  async concurrent_300() {
    const request = output(10, 10, { interval_us: 300000 });
    const calls = Array.from({ length: 300 }, () => collect(stub.StreamingOutputCall(request, deadline(30000))));
    for (const seen of await Promise.all(calls)) assert.deepStrictEqual(ok(seen).sizes, [10]);
  },
  async deadline_seen() {
    const asked = metadataOf({ 'x-test-report': '1' });
    const left = ok(await call('EmptyCall', {}, asked, deadline(5000))).trailing.get('x-test-remaining-ms')[0];
    assert(Number(left) > 2000 && Number(left) <= 5100, `the server saw ${left} of 5000 ms`);
    const none = ok(await call('EmptyCall', {}, asked, {})).trailing.get('x-test-remaining-ms')[0];
    assert.strictEqual(none, 'none');
  },
  cancel_seen: cancelSeen,
  async status_details() {
    const seen = await call('EmptyCall', {}, metadataOf({ 'x-test-details-bin': DETAILS }));
    failed(seen, grpc.status.FAILED_PRECONDITION, 'with details');
    assert.deepStrictEqual(seen.error.metadata.get('grpc-status-details-bin'), [DETAILS]);
  },
  async mebibyte_both_ways() {
    await unary(1 << 20, 1 << 20);
    const stream = stub.FullDuplexCall(deadline(20000));
    const ended = collect(stream);
    for (let turn = 0; turn < 4; turn++) stream.write(output(1 << 20, 1 << 20));
    stream.end();
    assert.deepStrictEqual(ok(await ended).sizes, Array(4).fill(1 << 20));
  },
  async stream_of_1000() {
    const stream = stub.FullDuplexCall(deadline(30000));
    const ended = collect(stream);
    for (let turn = 0; turn < 1000; turn++) stream.write(output(100, 100));
    stream.end();
    assert.deepStrictEqual(ok(await ended).sizes, Array(1000).fill(100));
  },
};

async function main() {
  for (const name of arg('cases').split(',')) {
    const start = Date.now();
    try {
      await cases[name]();
      console.log(`PASS ${name} ${Date.now() - start}`);
    } catch (error) {
      const text = `${error.name}: ${error.message}`.replace(/\s+/g, ' ').slice(0, 500);
      console.log(error instanceof Skip ? `SKIP ${name} ${error.message}` : `FAIL ${name} ${text}`);
    }
  }
  stub.close();
  process.exit(0);
}

main();
