// The authorization server of the tests: oidc-provider on loopback, and a second port by which the tests steer it.
// TEST_SERVER in the environment is JSON: {port, control, folder with rs.pem, es.pem and client.pem, secret of all
// clients, rights: the scopes that there are}.
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as http from 'node:http';
import Provider, { errors } from 'oidc-provider'; // version 8 is the last that runs on Node 18, which Debian 12 has

const { port, control, folder, secret, rights } = JSON.parse(process.env.TEST_SERVER);
const issuer = `http://127.0.0.1:${port}`;

const defaults = { at: 60, device: 60, interval: 1, refresh: 3600 }; // lives and the device flow's interval, in seconds
let config, failures, requests, lastPoll;
const secrets = new Set(); // every secret that passed through, for the check of the debug log
function reset() {
  config = { ...defaults };
  failures = []; // {status, retryAfter, error, body, left}; the first with any left answers
  requests = 0; // POSTs to the token endpoint
  lastPoll = new Map();
}
reset();

const jwk = (name, kid, alg) => ({
  ...crypto.createPrivateKey(fs.readFileSync(`${folder}/${name}.pem`)).export({ format: 'jwk' }), kid, alg, use: 'sig',
});
const publicPart = ({ d, ...rest }) => rest; // of an EC key

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
    service('service-key-jwt', 'private_key_jwt', {
      client_secret: undefined, token_endpoint_auth_signing_alg: 'ES256', jwks: { keys: [publicPart(jwk('client', 'client', 'ES256'))] },
    }),
    {
      client_id: 'device', client_name: 'A device', token_endpoint_auth_method: 'none', application_type: 'native',
      grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
      response_types: [], redirect_uris: [], scope: `openid offline_access ${rights}`,
    },
  ],
  jwks: { keys: [jwk('rs', 'rs', 'RS256'), jwk('es', 'es', 'ES256')] },
  scopes: ['openid', 'offline_access', ...rights.split(' ')],
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'none'],
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
  if (sent.device_code) { // oidc-provider has no slow_down of its own
    const now = Date.now(), last = lastPoll.get(sent.device_code);
    lastPoll.set(sent.device_code, now);
    const early = last && now - last < config.interval * 1000 - 100;
    if (early && ctx.body?.error === 'authorization_pending') ctx.body = { error: 'slow_down' };
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

let server;
const commands = {
  reset,
  config: (wanted) => void Object.assign(config, wanted),
  fail: (failure) => void failures.push({ ...failure, left: failure.times ?? Infinity }),
  heal: () => { failures = []; },
  requests: () => requests,
  secrets: () => [...secrets],
  decide: async ({ userCode, ...decision }) => {
    const code = await provider.DeviceCode.findByUserCode(userCode.replace(/-/g, '').toUpperCase(), { ignoreExpiration: true });
    if (!code) throw new Error('no such user code');
    await decide(code, decision);
  },
  start: () => new Promise((resolve, reject) => { // each time on the same port, with the same keys and grants
    server = provider.listen(port, '127.0.0.1', () => resolve()).on('error', reject);
  }),
  stop: () => new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  }),
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
