// The authorization server of the tests: oidc-provider on loopback, and a second port by which the tests control it.
// TEST_SERVER in the environment is JSON: {port, tls: the port for client certificates, control, folder with rs.pem,
// es.pem, client.pem, client-rs.pem and client-ed.pem, pki: the folder with ca.pem, server.pem, server.key and
// client.pem, secret of all clients, rights: the existing scopes}.
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as http from 'node:http';
import * as https from 'node:https';
import Provider, { errors } from 'oidc-provider'; // version 8 is the last one for Node 18, the version of Debian 12

const { port, tls, control, folder, pki, secret, rights } = JSON.parse(process.env.TEST_SERVER);
const issuer = `http://127.0.0.1:${port}`;

// lifetimes and the device flow's interval, in seconds; lenient: a rotated refresh token may be used again
const defaults = { at: 60, device: 60, interval: 1, refresh: 3600, lenient: 0 };
let config, failures, losses, requests, lastPoll;
const secrets = new Set(); // every secret it saw or issued, for the check of the debug log
function reset() {
  config = { ...defaults };
  failures = []; // {status, retryAfter, error, body, left}; the first one with left > 0 answers
  losses = 0; // the number of the next answers of the token endpoint that get lost
  requests = 0; // POSTs to the token endpoint
  lastPoll = new Map();
}
reset();

const jwk = (name, kid, alg) => ({
  ...crypto.createPrivateKey(fs.readFileSync(`${folder}/${name}.pem`)).export({ format: 'jwk' }), kid, alg, use: 'sig',
});
const publicJwk = (pem, more) => ({ ...crypto.createPublicKey(fs.readFileSync(pem)).export({ format: 'jwk' }), ...more });
const derBase64 = (pem) => new crypto.X509Certificate(fs.readFileSync(pem)).raw.toString('base64');

const resources = { 'urn:test:mqtt': 'RS256', 'urn:test:mqtt-es': 'ES256' };
const service = (client_id, token_endpoint_auth_method, more) => ({
  client_id, client_secret: secret, token_endpoint_auth_method,
  grant_types: ['client_credentials'], response_types: [], redirect_uris: [], scope: rights, ...more,
});

const provider = new Provider(issuer, {
  clients: [
    service('service', 'client_secret_basic'),
    // RFC 6749 section 2.3.1: id and secret are form-encoded before they are joined by a colon
    service('odd: client+%id', 'client_secret_basic', { client_secret: `${secret}: +%&=/` }),
    service('service-post', 'client_secret_post'),
    service('service-secret-jwt', 'client_secret_jwt', { token_endpoint_auth_signing_alg: 'HS256' }),
    ...[['service-key-jwt', 'client', 'ES256'], ['service-key-jwt-rs', 'client-rs', 'RS256'], ['service-key-jwt-ed', 'client-ed', 'EdDSA']]
      .map(([client_id, name, alg]) => service(client_id, 'private_key_jwt', {
        client_secret: undefined, token_endpoint_auth_signing_alg: alg,
        jwks: { keys: [publicJwk(`${folder}/${name}.pem`, { kid: name, alg, use: 'sig' })] },
      })),
    service('service-tls', 'tls_client_auth', { client_secret: undefined, tls_client_auth_san_dns: 'pump-17.example' }),
    service('service-self-signed-tls', 'self_signed_tls_client_auth', {
      client_secret: undefined, jwks: { keys: [publicJwk(`${pki}/client.pem`, { x5c: [derBase64(`${pki}/client.pem`)] })] },
    }),
    {
      client_id: 'device', client_name: 'A device', token_endpoint_auth_method: 'none', application_type: 'native',
      grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
      response_types: [], redirect_uris: [], scope: `openid offline_access ${rights}`,
    },
  ],
  jwks: { keys: [jwk('rs', 'rs', 'RS256'), jwk('es', 'es', 'ES256')] },
  scopes: ['openid', 'offline_access', ...rights.split(' ')],
  clientAuthMethods: [
    'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'none', 'tls_client_auth',
    'self_signed_tls_client_auth',
  ],
  discovery: { mtls_endpoint_aliases: { token_endpoint: `https://127.0.0.1:${tls}/token` } },
  findAccount: (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  rotateRefreshToken: true,
  issueRefreshToken: async (ctx, client) => client.grantTypeAllowed('refresh_token'),
  expiresWithSession: async () => false,
  ttl: {
    ClientCredentials: () => config.at, AccessToken: () => config.at, DeviceCode: () => config.device,
    RefreshToken: () => config.refresh, Grant: 86400, Session: 86400, Interaction: 3600, IdToken: 3600,
  },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    mTLS: {
      enabled: true, tlsClientAuth: true, selfSignedTlsClientAuth: true,
      getCertificate: (ctx) => ctx.socket.getPeerX509Certificate?.(),
      certificateAuthorized: (ctx) => ctx.socket.authorized,
      certificateSubjectMatches: (ctx, property, expected) =>
        property === 'tls_client_auth_san_dns' && ctx.socket.getPeerX509Certificate().checkHost(expected) !== undefined,
    },
    introspection: { enabled: true },
    revocation: { enabled: true },
    deviceFlow: { enabled: true, charset: 'base-20', mask: '****-****' },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'urn:test:mqtt',
      useGrantedResource: () => true,
      getResourceServerInfo(ctx, resource) {
        if (!resources[resource]) throw new errors.InvalidTarget();
        const jwt = { sign: { alg: resources[resource] } };
        return { scope: rights, audience: 'rabbitmq', accessTokenTTL: config.at, accessTokenFormat: 'jwt', jwt };
      },
    },
  },
});

provider.use(async (ctx, next) => {
  const asksToken = ctx.path === '/token' && ctx.method === 'POST';
  if (asksToken) {
    requests += 1;
    const [scheme, credentials] = (ctx.get('Authorization') || ' ').split(' ');
    if (credentials) secrets.add(`${scheme} ${credentials}`).add(credentials);
    const failure = failures.find((f) => f.left > 0);
    if (failure) {
      failure.left -= 1;
      ctx.status = failure.status;
      if (failure.retryAfter !== null) ctx.set('Retry-After', failure.retryAfter);
      ctx.body = failure.error ? { error: failure.error } : 'the test wants this to fail';
      return;
    }
  }
  await next();
  if (ctx.path === '/device/auth' && ctx.status === 200) ctx.body = { ...ctx.body, interval: config.interval };
  if (!asksToken) return;
  const sent = ctx.oidc?.body ?? {};
  for (const name of ['client_secret', 'client_assertion', 'refresh_token', 'device_code']) if (sent[name]) secrets.add(sent[name]);
  for (const name of ['access_token', 'refresh_token', 'id_token']) if (ctx.body?.[name]) secrets.add(ctx.body[name]);
  if (sent.refresh_token && config.lenient) {
    const rotated = await provider.RefreshToken.find(sent.refresh_token);
    if (rotated?.consumed) await Object.assign(rotated, { consumed: undefined }).save();
  }
  if (sent.device_code) { // oidc-provider does not implement slow_down
    const now = Date.now(), last = lastPoll.get(sent.device_code);
    lastPoll.set(sent.device_code, now);
    const early = last && now - last < config.interval * 1000 - 100;
    if (early && ctx.body?.error === 'authorization_pending') ctx.body = { error: 'slow_down' };
  }
  if (losses > 0) {
    losses -= 1;
    ctx.respond = false;
    ctx.res.destroy();
  }
});
provider.on('server_error', (ctx, error) => console.error(error));

async function decide(code, { approve, sub }) {
  if (!approve) return Object.assign(code, { error: 'access_denied', errorDescription: 'denied by the test' }).save();
  const { scope = '', resource = 'urn:test:mqtt' } = code.params;
  const grant = new provider.Grant({ accountId: sub, clientId: code.clientId });
  grant.addOIDCScope(scope);
  for (const one of [resource].flat()) grant.addResourceScope(one, scope);
  const authTime = Math.floor(Date.now() / 1000);
  return Object.assign(code, { accountId: sub, grantId: await grant.save(), scope, resource, authTime, claims: {} }).save();
}

// Any client certificate is accepted here: oidc-provider checks it
const withCertificates = {
  key: fs.readFileSync(`${pki}/server.key`), cert: fs.readFileSync(`${pki}/server.pem`), ca: fs.readFileSync(`${pki}/ca.pem`),
  requestCert: true, rejectUnauthorized: false,
};
const listen = (server, at) => new Promise((resolve, reject) => {
  server.listen(at, '127.0.0.1', () => resolve()).on('error', reject);
});
const close = (server) => new Promise((resolve) => {
  server.close(() => resolve());
  server.closeAllConnections();
});
let servers;
const commands = {
  reset,
  config: (wanted) => void Object.assign(config, wanted),
  fail: (failure) => void failures.push({ ...failure, left: failure.times ?? Infinity }),
  heal: () => { failures = []; },
  lose: ({ times }) => { losses = times; },
  requests: () => requests,
  secrets: () => [...secrets],
  decide: async ({ userCode, ...decision }) => {
    const code = await provider.DeviceCode.findByUserCode(userCode.replace(/-/g, '').toUpperCase(), { ignoreExpiration: true });
    if (!code) throw new Error('no such user code');
    await decide(code, decision);
  },
  start: () => { // each time on the same ports, with the same keys and grants
    servers = [http.createServer(provider.callback()), https.createServer(withCertificates, provider.callback())];
    return Promise.all([listen(servers[0], port), listen(servers[1], tls)]);
  },
  stop: () => Promise.all(servers.map(close)),
};

await commands.start();
http.createServer(async (request, response) => {
  let body = '';
  for await (const chunk of request) body += chunk;
  try {
    const answer = await commands[request.url.slice(1)](JSON.parse(body));
    response.end(JSON.stringify(answer ?? null));
  } catch (error) {
    response.writeHead(400).end(String(error));
  }
}).listen(control, '127.0.0.1', () => console.log(`${issuer} is ready`));
