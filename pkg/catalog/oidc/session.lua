-- Sessions and what is made of the key: seals, texts that nobody can guess, encrypted tokens, and cookies.
--
-- What is signed, and all secrets of a login, come from config.key, each by a purpose of its own. So what was made for one
-- purpose is worth nothing for another.

local config = ...

local sessions = {}

local SESSION, LOGIN = config.session, config.login

local function attributes(same_site)
  local domain = config.domain and "; Domain=" .. config.domain or ""
  return "; Path=/" .. domain .. "; Secure; HttpOnly; SameSite=" .. same_site .. "; Max-Age="
end

-- The way back from the provider begins at another site, so that a cookie which is Strict would not come with it.
local SESSION_ATTRIBUTES = attributes(config.same_site)
local LOGIN_ATTRIBUTES = attributes(config.same_site == "None" and "None" or "Lax")

-- Browsers keep 4096 bytes of a cookie, with its name and attributes; 20 are for numbers.
local PIECE, MOST_PIECES = 4076 - #SESSION - #SESSION_ATTRIBUTES, 5

local function digest(purpose, text)
  return pdk.hex.decode(pdk.hmac("sha256", config.key, purpose .. "\n" .. text))
end

function sessions.seal(purpose, text)
  return pdk.base64.encode_url(digest(purpose, text))
end

-- random makes texts that nobody can guess who does not know the key. Their inputs need not be secret, only new.
local made = 0
function sessions.random(handle)
  made = made + 1
  local address = handle:streamInfo():downstreamRemoteAddress()
  return sessions.seal("random", table.concat({ pdk.uuid(), pdk.request_id(handle) or "", address, os.time(), made }, "\n"))
end

-- mask encrypts and decrypts: xor with a key as long as the text, of a seed that is used once for a purpose (the one-step
-- key derivation of NIST SP 800-56C: digests of a counter and a secret).
function sessions.mask(purpose, seed, text)
  local secret, out = digest(purpose, seed), {}
  for from = 1, #text, 32 do
    local block = pdk.hex.decode(pdk.sha256(("%08d"):format(from) .. secret))
    for i = from, math.min(from + 31, #text) do
      out[i] = string.char(bit.bxor(text:byte(i), block:byte(i - from + 1)))
    end
  end
  return table.concat(out)
end

function sessions.expired(name)
  return name .. "=" .. SESSION_ATTRIBUTES .. "0"
end

-- The session is base64url of JSON: {e: when it ends, s: the subject, h: upstream headers by number, k: the seed of its
-- tokens, r: when to renew it, u: until when it can be renewed}; a dot, and base64url of the encrypted access token or
-- nothing; with a refresh token a dot, and that one, too; a dot, and the seal of all that. In the first cookie the number of
-- cookies stands before it.

function sessions.cookies(session)
  local values = { e = session.e, s = session.s, h = session.h, k = session.k, r = session.r, u = session.u }
  local text = pdk.base64.encode_url(pdk.json.encode(values)) .. "." .. pdk.base64.encode_url(session.token)
  if session.refresh then
    text = text .. "." .. pdk.base64.encode_url(session.refresh)
  end
  text = text .. "." .. sessions.seal("session", text)
  local pieces = math.ceil(#text / PIECE)
  if pieces > MOST_PIECES then
    return nil
  end
  local cookies, age = {}, math.max(session.e, session.u or 0) - os.time()
  for i = 1, pieces do
    local name = i == 1 and SESSION .. "=" .. pieces .. "." or SESSION .. "-" .. i .. "="
    cookies[i] = name .. text:sub((i - 1) * PIECE + 1, i * PIECE) .. SESSION_ATTRIBUTES .. age
  end
  return cookies
end

-- of returns the session of a request, or nil. It may have ended, if it can be renewed.
function sessions.of(handle)
  local pieces, text = (pdk.cookie(handle, SESSION) or ""):match("^(%d)%.(.+)$")
  if not pieces then
    return nil
  end
  for i = 2, math.min(tonumber(pieces), MOST_PIECES) do
    text = text .. (pdk.cookie(handle, SESSION .. "-" .. i) or "")
  end
  local sealed, signature = text:match("^(.+)%.(.+)$")
  if not sealed or not pdk.equal(signature, sessions.seal("session", sealed)) then
    return nil
  end
  local json, token, refresh = sealed:match("^([^.]*)%.([^.]*)%.?([^.]*)$")
  local session = pdk.json.decode(pdk.base64.decode_url(json))
  session.token = pdk.base64.decode_url(token)
  session.refresh = refresh ~= "" and pdk.base64.decode_url(refresh) or nil
  local renewable = config.refresh and session.refresh and session.u > os.time()
  if session.e > os.time() or renewable then
    return session, renewable and session.r <= os.time()
  end
end

function sessions.is_own(name)
  return name == SESSION or name:sub(1, #SESSION) == SESSION and name:find("^%-%d$", #SESSION + 1) or name:sub(1, #LOGIN) == LOGIN
end

sessions.PIECES, sessions.COOKIE, sessions.LOGIN, sessions.LOGIN_ATTRIBUTES = MOST_PIECES, SESSION, LOGIN, LOGIN_ATTRIBUTES

return sessions
