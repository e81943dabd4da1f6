// A plain server in grpc-js: `TestService/EmptyCall` and nothing else. Prints where it listens.
"use strict";

const grpc = require("@grpc/grpc-js");

const asItIs = (value) => value;
const service = {
  EmptyCall: {
    path: "/grpc.testing.TestService/EmptyCall",
    requestStream: false,
    responseStream: false,
    requestSerialize: asItIs,
    requestDeserialize: asItIs,
    responseSerialize: asItIs,
    responseDeserialize: asItIs,
  },
};

const server = new grpc.Server();
server.addService(service, { EmptyCall: (_, callback) => callback(null, Buffer.alloc(0)) });
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.error(`listening on 127.0.0.1:${port}`);
});
