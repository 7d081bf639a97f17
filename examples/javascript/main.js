// A client of a flightstore gateway in JavaScript: @grpc/grpc-js at its default settings, a Flight.proto,
// and apache-arrow. (Arrow has no Flight client for JavaScript; this is all it takes.)
//
//     npm install && node main.js --url grpc://127.0.0.1:8815 put orders orders.arrow
//
// Copy what you need: each operation is one function that uses nothing but a connection.

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { parseArgs, promisify } from 'node:util';

import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import {
  Float64, makeData, Message, RecordBatch, RecordBatchReader, RecordBatchStreamWriter, Schema, Field, Struct,
} from 'apache-arrow';

// Messages of about this size pass every gRPC library's default limit of 4 MiB. The gateway takes far larger ones.
const MESSAGE_BYTES = 2 << 20;

const PATH = 1;
const CMD = 2;

// --- the connection ---

// Opens a connection; `ca` is a file of certificates to trust.
function connect({ url, token, ca }) {
  const proto = loadSync(new URL('Flight.proto', import.meta.url).pathname, { keepCase: true, longs: Number, defaults: true });
  const { FlightService } = grpc.loadPackageDefinition(proto).arrow.flight.protocol;
  const security = url.startsWith('grpc+tls://')
    ? grpc.credentials.createSsl(ca ? readFileSync(ca) : null)
    : grpc.credentials.createInsecure();
  const client = new FlightService(url.replace(/^.*:\/\//, ''), security);
  const headers = new grpc.Metadata();
  if (token) headers.set('authorization', `Bearer ${token}`);
  return { client, headers };
}

// The descriptor of the object of that name.
const named = (name) => ({ type: PATH, path: [name] });

// A descriptor that says more than a name: JSON, see docs/protocol.md.
const commanded = (command) => ({ type: CMD, cmd: Buffer.from(JSON.stringify(command)) });

function getFlightInfo({ client, headers }, descriptor) {
  return promisify(client.GetFlightInfo.bind(client))(descriptor, headers);
}

// Does an action: one JSON object goes, one comes.
async function act({ client, headers }, type, body) {
  for await (const answer of client.DoAction({ type, body: Buffer.from(JSON.stringify(body)) }, headers)) {
    return JSON.parse(answer.body);
  }
}

// --- Arrow's messages, as Flight wraps them ---

// The messages of a batch's stream: the schema (at its beginning only), dictionaries, and the batch itself.
function* messages(batch, isFirst) {
  const bytes = Buffer.from(RecordBatchStreamWriter.writeAll([batch]).toUint8Array(true));
  for (let at = 0; ; ) {
    const length = bytes.readInt32LE(at + 4);
    if (length === 0) return; // the stream's end
    const header = bytes.subarray(at + 8, at + 8 + length);
    const message = Message.decode(header);
    const end = at + 8 + length + Number(message.bodyLength);
    if (isFirst || !message.isSchema()) yield { header, body: bytes.subarray(at + 8 + length, end) };
    at = end;
  }
}

// Batches as FlightData.
async function* encoded(batches, descriptor) {
  let isFirst = true;
  for await (const batch of batches) {
    for (const { header, body } of messages(batch, isFirst)) {
      yield { flight_descriptor: isFirst ? descriptor : null, data_header: header, data_body: body };
      isFirst = false;
    }
  }
}

// A message as it stands in an Arrow stream: its length first, the header padded.
function framed(header, body) {
  const padding = -header.length & 7;
  const prefix = Buffer.alloc(8, 0xff);
  prefix.writeInt32LE(header.length + padding, 4);
  return Buffer.concat([prefix, header, Buffer.alloc(padding), body]);
}

// FlightData as an Arrow stream.
async function* decoded(stream) {
  for await (const { data_header: header, data_body: body } of stream) {
    if (header.length > 0) yield framed(header, body);
  }
}

// Sends FlightData, and gives back what was answered.
async function upload({ client, headers }, data) {
  const call = client.DoPut(headers);
  const answers = [];
  const finished = (async () => {
    for await (const answer of call) answers.push(answer.app_metadata.toString());
  })();
  const sent = (async () => {
    for await (const message of data) {
      if (!call.write(message)) await once(call, 'drain');
    }
    call.end();
  })();
  try {
    await Promise.race([finished, sent]); // a refusal ends it early
    await finished;
  } catch (error) {
    call.cancel(); // nothing is stored
    throw error;
  }
  return answers;
}

// A batch in slices of about MESSAGE_BYTES.
function* sliced(batch) {
  const bytes = Math.max(batch.data.byteLength, MESSAGE_BYTES);
  const step = Math.max(1, Math.floor((batch.numRows * MESSAGE_BYTES) / bytes));
  let row = 0;
  do { // an empty batch, too
    yield batch.slice(row, row + step);
    row += step;
  } while (row < batch.numRows);
}

// --- the operations ---

// Stores an Arrow IPC file or stream under a name: visible at once and whole, when the last batch is there.
async function put(connection, name, path) {
  let rows = 0;
  async function* slices() {
    const reader = await RecordBatchReader.from(await open(path));
    for await (const batch of reader) {
      rows += batch.numRows;
      yield* sliced(batch);
    }
    if (rows === 0) yield new RecordBatch(reader.schema);
  }
  console.log(...(await upload(connection, encoded(slices(), named(name)))));
  console.log(`put ${name}: ${rows} rows`);
}

// The batches of an object: GetFlightInfo says where its parts are, DoGet brings them.
async function* read(connection, descriptor) {
  const info = await getFlightInfo(connection, descriptor);
  for (const { ticket } of info.endpoint) {
    yield* await RecordBatchReader.from(decoded(connection.client.DoGet(ticket, connection.headers)));
  }
}

// Writes an object to an Arrow IPC stream file.
async function get(connection, name, path) {
  const file = await open(path, 'w');
  let rows = 0;
  let isFirst = true;
  for await (const batch of read(connection, named(name))) {
    rows += batch.numRows;
    for (const { header, body } of messages(batch, isFirst)) await file.write(framed(header, body));
    isFirst = false;
  }
  await file.write(framed(Buffer.alloc(0), Buffer.alloc(0))); // the stream's end
  await file.close();
  console.log(`got ${name}: ${rows} rows`);
}

// Prints all tables.
async function list({ client, headers }) {
  for await (const { flight_descriptor: { path, cmd }, total_records, total_bytes } of client.ListFlights({}, headers)) {
    console.log(`${path[0] ?? cmd}: ${total_records} rows, ${total_bytes} bytes`);
  }
}

async function schemaOf(info) {
  const reader = await RecordBatchReader.from(info.schema).open();
  return reader.schema;
}

// Prints what the gateway knows of an object, and its schema.
async function info(connection, name) {
  const found = await getFlightInfo(connection, named(name));
  console.log(`${name}: ${found.total_records} rows, ${found.total_bytes} bytes, ${found.endpoint.length} endpoint(s)`);
  for (const field of (await schemaOf(found)).fields) console.log(`  ${field.name}: ${field.type}`);
}

// Makes a table that has all of another's columns and one more: its first float64 column, doubled.
//
// Only the column that is read and the one that is new cross the wire: the new table shares the others' memory.
async function addColumn(connection, name, newName) {
  const schema = await schemaOf(await getFlightInfo(connection, named(name)));
  const source = schema.fields.find(({ type }) => String(type) === 'Float64');
  if (!source) throw new Error(`${name} has no float64 column`);
  async function* doubled() {
    for await (const batch of read(connection, commanded({ name, columns: [source.name] }))) {
      yield doubledBatch(batch);
    }
  }
  // The new column by itself goes without a name; then the table is made of both, and only the table uses it.
  const [answer] = await upload(connection, encoded(doubled(), commanded({})));
  const { id } = JSON.parse(answer);
  const made = { operation: 'with_columns', refs: [name, id], name: newName };
  console.log(JSON.stringify(await act(connection, 'compose', made)));
  await act(connection, 'delete', { refs: [id] });
}

function doubledBatch(batch) {
  const [values] = batch.data.children;
  const { length, nullCount } = values;
  const data = Float64Array.from(values.values.subarray(0, length), (value) => 2 * value);
  const column = makeData({ type: new Float64(), length, nullCount, nullBitmap: values.nullBitmap, data });
  const schema = new Schema([new Field('doubled', new Float64(), true)]);
  return new RecordBatch(schema, makeData({ type: new Struct(schema.fields), length, children: [column] }));
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      url: { type: 'string', default: 'grpc://127.0.0.1:8815' },
      token: { type: 'string' },
      ca: { type: 'string' },
    },
  });
  const [operation, ...names] = positionals;
  const operations = { put, get, list, info, 'add-column': addColumn };
  if (!(operation in operations)) {
    throw new Error('say put NAME FILE, get NAME FILE, list, info NAME or add-column NAME NEWNAME');
  }
  const connection = connect(values);
  try {
    await operations[operation](connection, ...names);
  } finally {
    connection.client.close();
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
