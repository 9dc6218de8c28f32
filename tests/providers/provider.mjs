// Two real identity providers on free ports of this machine, for the tests: `clinic` puts every claim into its id_token
// and authenticates us by a secret, `region` answers claims at userinfo and authenticates us by a key. They end with
// their standard input. `POST /test` of either changes what both do.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';
import { SignJWT, decodeJwt, exportJWK, generateKeyPair } from 'jose';

const { origin, key: ours } = JSON.parse(process.argv[2]);
const state = { tamper: null, users: {}, logouts: [] };

async function keys() {
  const make = async (alg) => {
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    const jwk = await exportJWK(privateKey);
    return { ...jwk, alg, use: 'sig', kid: `${alg}-${Math.random()}` };
  };
  return { keys: [await make('RS256'), await make('ES384')] };
}

const claims = ['acr', 'amr', 'groups', 'npi', 'fhirUser', 'preferred_username', 'token_use'];

function settings(id, issuer, jwks) {
  const clinic = id === 'clinic';
  const client = {
    client_id: 'phial',
    redirect_uris: [`${origin}/login/back/${id}`],
    post_logout_redirect_uris: [`${origin}/login`],
    backchannel_logout_uri: `${issuer}/test/logout`,
    backchannel_logout_session_required: true,
    ...(clinic
      ? { client_secret: 'a quiet secret of thirty-two bytes' }
      : {
          token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'ES384', jwks: { keys: [ours] },
          id_token_signed_response_alg: 'ES384',
        }),
  };
  return {
    jwks,
    clients: [client],
    cookies: { keys: ['only for tests'] },
    pkce: { required: () => true },
    conformIdTokenClaims: !clinic,
    claims: { openid: ['sub', ...(clinic ? claims : ['acr', 'amr'])], profile: claims },
    scopes: ['openid', 'profile'],
    enabledJWA: { clientAuthSigningAlgValues: ['ES384'], idTokenSigningAlgValues: ['RS256', 'ES384'] },
    findAccount: (ctx, sub) => state.users[sub] && { accountId: sub, claims: () => ({ sub, ...state.users[sub] }) },
    // Its own client asks nobody on this machine.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    async loadExistingGrant(ctx) {
      const { provider, client: { clientId }, session: { accountId } } = ctx.oidc;
      const grant = new provider.Grant({ clientId, accountId });
      grant.addOIDCScope('openid profile');
      grant.addOIDCClaims(['sub', ...claims]);
      await grant.save();
      return grant;
    },
    features: { devInteractions: { enabled: false }, backchannelLogout: { enabled: true }, userinfo: { enabled: true } },
    ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 3600, IdToken: 600, Interaction: 600, Session: 3600 },
  };
}

// What a provider would have to be broken, or not itself, to issue.
async function tampered(token, jwks, issuer) {
  const claims = decodeJwt(token);
  const now = Math.floor(Date.now() / 1000);
  const changes = {
    nonce: { nonce: 'another' }, 'no-nonce': { nonce: undefined }, iss: { iss: `${issuer}/other` }, aud: { aud: 'another' },
    'more-aud': { aud: ['phial', 'another'], azp: 'phial' }, azp: { azp: 'another' }, at_hash: { at_hash: 'AAAAAAAAAAAAAAAAAAAAAA' },
    expired: { exp: now - 400, iat: now - 500 }, old: { iat: now - 2000 }, future: { iat: now + 2000 }, nbf: { nbf: now + 2000 },
  };
  const encoded = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  if (state.tamper === 'none') return `${encoded({ alg: 'none' })}.${token.split('.')[1]}.`;
  if (state.tamper === 'signature') return token.slice(0, -12) + 'AAAAAAAAAAAA';
  if (state.tamper === 'unsigned') return `${encoded({ alg: 'RS256', kid: jwks.keys[0].kid })}.${token.split('.')[1]}.`;
  if (state.tamper === 'secret') {
    const secret = new TextEncoder().encode('a quiet secret of thirty-two bytes');
    return new SignJWT(claims).setProtectedHeader({ alg: 'HS256' }).sign(secret);
  }
  const own = jwks.keys[0];
  if (state.tamper === 'foreign') {
    const { privateKey } = await generateKeyPair('RS256');
    return new SignJWT(claims).setProtectedHeader({ alg: 'RS256', kid: own.kid }).sign(privateKey);
  }
  return new SignJWT({ ...claims, ...changes[state.tamper] }).setProtectedHeader({ alg: 'RS256', kid: own.kid })
    .sign(await (await import('jose')).importJWK(own, 'RS256'));
}

const body = async (request) => {
  let text = '';
  for await (const part of request) text += part;
  return text;
};

async function start(id) {
  const place = { handler: null };
  const server = createServer((request, response) => place.handler(request, response));
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const build = async () => {
    const jwks = await keys();
    const provider = new Provider(issuer, settings(id, issuer, jwks));
    provider.use(async (ctx, next) => {
      await next();
      if (ctx.path === '/token' && state.tamper && ctx.body?.id_token) {
        ctx.body = { ...ctx.body, id_token: await tampered(ctx.body.id_token, jwks, issuer) };
      }
    });
    const callback = provider.callback();
    place.handler = async (request, response) => {
      const answer = (status, type, text) => response.writeHead(status, { 'content-type': type }).end(text);
      try {
        if (request.url === '/test/logout') {
          state.logouts.push(new URLSearchParams(await body(request)).get('logout_token'));
          return answer(200, 'text/plain', '');
        }
        if (request.url === '/test') {
          const asked = JSON.parse(await body(request));
          if (asked.rotate) await build();
          Object.assign(state, asked.set);
          return answer(200, 'application/json', JSON.stringify(state));
        }
        if (request.url.startsWith('/interaction/')) {
          if (request.method === 'GET') {
            return answer(200, 'text/html', `<form method="post" action="${request.url}"></form>`);
          }
          const form = new URLSearchParams(await body(request));
          if (form.get('cancel')) {
            return await provider.interactionFinished(request, response, { error: 'access_denied' });
          }
          const login = { accountId: form.get('login'), amr: form.get('amr').split(' '), acr: form.get('acr') || undefined };
          return await provider.interactionFinished(request, response, { login });
        }
        return callback(request, response);
      } catch (error) {
        answer(500, 'text/plain', String(error.stack));
      }
    };
  };
  await build();
  return issuer;
}

console.log(JSON.stringify({ clinic: await start('clinic'), region: await start('region') }));
process.stdin.on('end', () => process.exit()).resume();
