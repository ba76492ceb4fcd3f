// A matchmaker in another language than the host's, from nothing but the specification of tickets: makes keys and signs tickets with Node's own
// crypto, without a package.
//
//   node mint.mjs keys DIR                        writes private.pem (PKCS #8) and public.pem (SPKI) of Ed25519
//   node mint.mjs EdDSA KEY.pem KID CLAIMS        prints a ticket signed with a private key
//   node mint.mjs HS256 SECRET KID CLAIMS         prints a ticket signed with a secret, given in base64 for URLs
//
// An empty KID leaves `kid` out.

import { createHmac, createPrivateKey, generateKeyPairSync, sign } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [algorithm, key, kid, claims] = process.argv.slice(2);

if (algorithm === 'keys') {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  writeFileSync(join(key, 'private.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }));
  writeFileSync(join(key, 'public.pem'), publicKey.export({ type: 'spki', format: 'pem' }));
} else {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const header = { alg: algorithm, typ: 'JWT', ...(kid ? { kid } : {}) };
  const message = `${part(header)}.${part(JSON.parse(claims))}`;
  const signature =
    algorithm === 'EdDSA'
      ? sign(null, Buffer.from(message), createPrivateKey(readFileSync(key)))
      : createHmac('sha256', Buffer.from(key, 'base64url')).update(message).digest();
  console.log(`${message}.${signature.toString('base64url')}`);
}
