-- jwt: tokens signed with a key that belongs to a Consumer. Which key a token is verified with, and how, the credential
-- says: of the token's own words only the name of the credential is believed before.

local config = ...

local known = config.known
local find = token.finder(config)
local invalid = token.invalid

-- What the algorithms are made of. size is the length of a signature with an elliptic curve: two numbers, r and s.
local ALGORITHMS = {
  HS256 = { hmac = "sha256" }, HS384 = { hmac = "sha384" }, HS512 = { hmac = "sha512" },
  RS256 = { digest = "sha256" }, RS384 = { digest = "sha384" }, RS512 = { digest = "sha512" },
  ES256 = { digest = "sha256", size = 64 },
  ES384 = { digest = "sha384", size = 96 },
  ES512 = { digest = "sha512", size = 132 },
}

-- The JSON value in a part of a token, and whether it is an object.
local function decode(part)
  local text = pdk.base64.decode_url(part)
  if not text then
    return nil
  end
  return pdk.json.decode(text), text:find("^[ \t\r\n]*{") ~= nil
end

-- parse returns {header, claims, signature, signed} of a token, or nil and what is wrong with it.
local function parse(text)
  if #text > token.LONGEST then
    return nil, "invalid JSON"
  end
  local head, body, tail = text:match("^([^.]*)%.([^.]*)%.(.*)$")
  if not head then
    return nil, "invalid JSON"
  end
  local header, is_header = decode(head)
  local claims, are_claims = decode(body)
  if not is_header or header == nil or claims == nil then
    return nil, "invalid JSON"
  end
  if type(header.alg) ~= "string" or not ALGORITHMS[header.alg] then
    return nil, "invalid alg"
  end
  if not are_claims then
    return nil, "invalid claims"
  end
  -- Padding would be a second spelling of the same signature.
  local signature = not tail:find("=", 1, true) and pdk.base64.decode_url(tail)
  if not signature then
    return nil, "invalid signature"
  end
  return { header = header, claims = claims, signature = signature, signed = head .. "." .. body }
end

-- The key of the credential that a token names, from its claims or else from its header; nil and a problem without one.
local function credential_key(jwt)
  local name = config.key_claim
  local from = jwt.claims[name] ~= nil and jwt.claims or jwt.header
  local value = from[name]
  if value == nil then
    return nil, invalid("No mandatory '" .. name .. "' in claims")
  elseif type(value) == "number" then
    return pdk.json.text(from, name)
  elseif type(value) ~= "string" or value == "" then
    return nil, invalid("Invalid '" .. name .. "' in claims")
  end
  return value
end

-- A positive number in DER: no zeros in front, but one where the first bit would make it negative.
local function integer(bytes)
  bytes = bytes:gsub("^%z+", "")
  if bytes == "" or bytes:byte() >= 0x80 then
    bytes = "\0" .. bytes
  end
  return "\2" .. string.char(#bytes) .. bytes
end

-- A signature of r and s as the sequence in DER that Envoy takes.
local function sequence(signature)
  local half = #signature / 2
  local content = integer(signature:sub(1, half)) .. integer(signature:sub(half + 1))
  return "\48" .. (#content > 127 and "\129" or "") .. string.char(#content) .. content
end

local function secret_of(credential)
  if not config.base64 then
    return credential.secret
  end
  return pdk.base64.decode(credential.secret) or pdk.base64.decode_url(credential.secret)
end

-- The public key in DER. It is decoded when it is first used, and kept where all plugins that share the credentials find it.
local function key_of(credential)
  credential.der = credential.der or pdk.base64.decode(credential.public_key)
  return credential.der
end

local UNUSABLE = "Invalid key/secret"

-- Verifies by a public key; nil and why where Envoy does not take the key. Envoy returns the first key again when a second
-- is imported for the same request, so a slot runs one plugin that imports, and this one does so once.
local function verify_public(handle, jwt, algorithm, key)
  local signature = jwt.signature
  if algorithm.size then
    if #signature ~= algorithm.size then
      return false
    end
    signature = sequence(signature)
  end
  local imported = handle:importPublicKey(key, #key):get()
  if not imported then
    return nil, UNUSABLE
  end
  local verified = handle:verifySignature(algorithm.digest, imported, signature, #signature, jwt.signed, #jwt.signed)
  return verified == true
end

-- verify returns nil, or what is wrong with a token's signature.
local function verify(handle, jwt, credential)
  if jwt.header.alg ~= credential.algorithm then
    return "Invalid algorithm"
  end
  local algorithm = ALGORITHMS[credential.algorithm]
  local verified, unusable
  if algorithm.hmac then
    local secret = secret_of(credential)
    if not secret then
      return UNUSABLE
    end
    verified = pdk.equal(pdk.hmac(algorithm.hmac, secret, jwt.signed), pdk.hex.encode(jwt.signature))
  else
    verified, unusable = verify_public(handle, jwt, algorithm, key_of(credential))
  end
  return not verified and (unusable or "Invalid signature") or nil
end

-- The consumer of the request and the credential's key; or nil and a problem.
local function identify(handle)
  local text, several = find(handle)
  if not text then
    return nil, token.missing(several)
  end
  local jwt, bad = parse(text)
  if not jwt then
    return nil, invalid("Bad token; " .. bad)
  end
  local key, problem = credential_key(jwt)
  if not key then
    return nil, problem
  end
  local credential = known.credentials[key]
  if not credential then
    return nil, invalid("No credentials found for given '" .. config.key_claim .. "'")
  end
  local wrong = verify(handle, jwt, credential)
  if wrong then
    return nil, invalid(wrong)
  end
  problem = token.check_claims(config, jwt.claims)
  if problem then
    return nil, problem
  end
  return known.consumers[credential.consumer], key
end

return { request = authn.request(config, "jwt", identify, token.refuser(config)) }
