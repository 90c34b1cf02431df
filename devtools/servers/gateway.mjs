// A gateway in front of a broker's WebSocket: it forwards a client whose upgrade request has a token in "Authorization:
// Bearer", until the token expires. TEST_GATEWAY in the environment is JSON: {port, broker: the port that it forwards to,
// keys: paths of the public keys by algorithm}.
import * as fs from 'node:fs';
import * as http from 'node:http';
import * as net from 'node:net';
import { importSPKI, jwtVerify } from 'jose';

const { port, broker, keys } = JSON.parse(process.env.TEST_GATEWAY);
const key = ({ alg }) => importSPKI(fs.readFileSync(keys[alg], 'utf8'), alg);

const server = http.createServer((request, response) => response.writeHead(426).end());
server.on('upgrade', async (request, socket, head) => {
  socket.on('error', () => {});
  const [, token] = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '') ?? [];
  let claims;
  try {
    claims = (await jwtVerify(token, key, { audience: 'rabbitmq', requiredClaims: ['exp'] })).payload;
  } catch (error) {
    console.log(`refused: ${error.code}`);
    socket.end('HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    return;
  }
  console.log(`accepted ${claims.jti}`);
  const { authorization, ...headers } = request.headers;
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const onward = net.connect(broker, '127.0.0.1');
  onward.on('error', () => socket.destroy());
  onward.write(`GET ${request.url} HTTP/1.1\r\n${lines.join('')}\r\n`);
  onward.write(head);
  for (const [from, to] of [[socket, onward], [onward, socket]]) {
    from.setNoDelay().pipe(to);
    from.on('close', () => to.destroy());
  }
  const end = setTimeout(() => socket.destroy(), claims.exp * 1000 - Date.now());
  socket.on('close', () => clearTimeout(end));
});
server.listen(port, '127.0.0.1');
