// Trains on three points, prints each epoch log as it comes, and predicts.
//   node train.js [HOST:PORT]     (or EPOCHD_SERVER; 127.0.0.1:50051 without either)
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const address = process.argv[2] ?? process.env.EPOCHD_SERVER ?? "127.0.0.1:50051";
const protos = fileURLToPath(new URL("../../protos", import.meta.url));
const { epochd } = grpc.loadPackageDefinition(
  protoLoader.loadSync("epochd/v1/trainer.proto", {
    includeDirs: [protos],
    keepCase: true,
    defaults: true, // zeros, too: epoch 0 is left out on the wire
    longs: Number,
    oneofs: true,
  }),
);
const trainer = new epochd.v1.Trainer(address, grpc.credentials.createInsecure());

// Plain numbers will do: no tensor library is needed. `shape` is [rows, columns].
const matrix = (rows) => ({ shape: [rows.length, rows[0].length], numbers: { values: rows.flat() } });

const request = {
  request_id: randomUUID(), // sent again after a lost connection, it attaches instead of training twice
  model_name: "three-points-node",
  data: { tensors: { features: matrix([[1], [2], [3]]), targets: matrix([[2], [4], [6]]) } },
  model: { linear: {}, init: "INIT_ZEROS" },
  loss: { mse: {} },
  gradient: { epochs: 2000, optimizer: { sgd: { lr: 0.01 } } },
  logging: { every: 200 },
};

const show = {
  queued: ({ run }) => console.log(`${run} is queued`),
  started: ({ parameters, rows, device }) => console.log(`training ${parameters} parameters on ${rows} rows, on ${device}`),
  epoch_log: ({ epoch, loss }) => console.log(`epoch ${String(epoch).padStart(4)}  loss ${loss.toFixed(6)}`),
  warning: ({ message }) => console.warn(`warning: ${message}`),
  succeeded: ({ model_version, training_seconds }) => console.log(`${model_version} after ${training_seconds.toFixed(3)} s`),
};

async function train() {
  for await (const { events } of trainer.Train(request)) {
    for (const event of events) {
      show[event.kind]?.(event[event.kind]);
      if (event.kind === "succeeded") return event.succeeded.model_version;
      if (event.kind === "failed") throw new Error(`${event.failed.message} ${event.failed.hint ?? ""}`);
      if (event.kind === "cancelled") throw new Error("the run was cancelled");
    }
  }
  throw new Error("the stream ended before the run: watch it with Runs.WatchRun");
}

function predict(model, rows) {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + 10_000;
    trainer.Predict({ model, tensor: matrix(rows) }, { deadline }, (error, response) =>
      error ? reject(error) : resolve(numbers(response.values)),
    );
  });
}

// A tensor's elements: little-endian bytes of its dtype, here FLOAT32.
function numbers({ data }) {
  return Array.from({ length: data.length / 4 }, (_, index) => data.readFloatLE(4 * index));
}

try {
  const version = await train();
  const [prediction] = await predict(version, [[4]]);
  console.log(`4 → ${prediction.toFixed(4)}`);
} catch (error) {
  console.error(`error: ${error.details ?? error.message}`);
  process.exitCode = 1;
} finally {
  trainer.close();
}
