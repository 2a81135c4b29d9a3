-- oidc: a browser is sent to an OpenID provider, comes back with a code, and the code buys an ID token, whose claims go
-- into a signed cookie. The gateway keeps nothing: a login that has begun is a cookie, too.
--
-- What is signed, and all secrets of a login, come from config.key, each by a purpose of its own. So what was made for one
-- purpose is worth nothing for another.

local config = ...


-- How long a user may take at the provider, and by how much the clocks may differ, in seconds.
local PATIENCE, SKEW = 600, 60

-- Browsers keep 4096 bytes of a cookie, with its name and attributes.
local PIECE, MOST_PIECES = 3800, 5

-- A longer path is not come back to: it would not fit into a URL.
local LONGEST_PATH = 1024

local SESSION, LOGIN = config.cookie, config.cookie .. "-login-"
local ATTRIBUTES = "; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age="

local function digest(purpose, text)
  return pdk.hex.decode(pdk.hmac("sha256", config.key, purpose .. "\n" .. text))
end

local function seal(purpose, text)
  return pdk.base64.encode_url(digest(purpose, text))
end

-- random makes texts that nobody can guess who does not know the key. Their inputs need not be secret, only new.
local made = 0
local function random(handle)
  made = made + 1
  local address = handle:streamInfo():downstreamRemoteAddress()
  return seal("random", table.concat({ pdk.uuid(), pdk.request_id(handle) or "", address, os.time(), made }, "\n"))
end

-- mask encrypts and decrypts: xor with a key as long as the text, of a seed that is used once (the one-step key derivation
-- of NIST SP 800-56C: digests of a counter and a secret).
local function mask(seed, text)
  local secret, out = digest("token", seed), {}
  for from = 1, #text, 32 do
    local block = pdk.hex.decode(pdk.sha256(("%08d"):format(from) .. secret))
    for i = from, math.min(from + 31, #text) do
      out[i] = string.char(bit.bxor(text:byte(i), block:byte(i - from + 1)))
    end
  end
  return table.concat(out)
end

-- The URL of this host, without path.
local function origin(handle)
  if config.origin then
    return config.origin
  end
  local scheme = pdk.header(handle, "x-forwarded-proto") or pdk.header(handle, ":scheme") or "https"
  return scheme .. "://" .. pdk.header(handle, ":authority")
end

local function redirect_uri(handle)
  return origin(handle) .. config.callback
end

-- A URL with further arguments, a list of name, value, name, value.
local function with(url, arguments)
  local out = {}
  for i = 1, #arguments, 2 do
    out[#out + 1] = arguments[i] .. "=" .. pdk.url.encode(arguments[i + 1])
  end
  return url .. (url:find("?", 1, true) and "&" or "?") .. table.concat(out, "&")
end

local function redirect(handle, location, cookies)
  pdk.exit(handle, 302, { location = location, ["set-cookie"] = cookies, ["cache-control"] = "no-store" })
end

local function expired(name)
  return name .. "=" .. ATTRIBUTES .. "0"
end

-- refuse tells a client nothing and the log why.
local function refuse(handle, why, cookies)
  pdk.log(handle, "info", "login refused: " .. why)
  pdk.fail(handle, 401, "Login failed", { headers = { ["set-cookie"] = cookies }, request_id = true })
end

local function unavailable(handle, why, cookies)
  pdk.log(handle, "warn", "login failed: " .. why)
  pdk.fail(handle, 502, "OpenID provider unavailable", { headers = { ["set-cookie"] = cookies }, request_id = true })
end

-- The session is base64url of {e: when it ends, s: the subject, h: upstream headers by number, k: the seed of the token} as
-- JSON, a dot, base64url of the encrypted access token or nothing, a dot, and the seal of all that; in the first cookie
-- behind the number of cookies.

local function session_cookies(session, token)
  local text = pdk.base64.encode_url(pdk.json.encode(session)) .. "." .. pdk.base64.encode_url(token)
  text = text .. "." .. seal("session", text)
  local pieces = math.ceil(#text / PIECE)
  if pieces > MOST_PIECES then
    return nil
  end
  local cookies, age = {}, session.e - os.time()
  for i = 1, pieces do
    local name = i == 1 and SESSION .. "=" .. pieces .. "." or SESSION .. "-" .. i .. "="
    cookies[i] = name .. text:sub((i - 1) * PIECE + 1, i * PIECE) .. ATTRIBUTES .. age
  end
  return cookies
end

-- session_of returns the session of a request and its encrypted token, or nil.
local function session_of(handle)
  local pieces, text = (pdk.cookie(handle, SESSION) or ""):match("^(%d)%.(.+)$")
  if not pieces then
    return nil
  end
  for i = 2, math.min(tonumber(pieces), MOST_PIECES) do
    text = text .. (pdk.cookie(handle, SESSION .. "-" .. i) or "")
  end
  local sealed, signature = text:match("^(.+)%.(.+)$")
  if not sealed or not pdk.equal(signature, seal("session", sealed)) then
    return nil
  end
  local json, token = sealed:match("^(.+)%.(.*)$")
  local session = pdk.json.decode(pdk.base64.decode_url(json))
  if session.e > os.time() then
    return session, pdk.base64.decode_url(token)
  end
end

-- The secrets of one login, which only this gateway knows: what the token must say, and what the code was asked for with.
local function secrets(flow, browser)
  return seal("nonce", flow .. "\n" .. browser), seal("verifier", flow .. "\n" .. browser)
end

-- begin sends the browser to the provider. The state names the login and where to go afterwards; a cookie binds it to this
-- browser, so that nobody can be made to use another's login. Logins have a cookie each, as tabs begin at once.
local function begin(handle)
  local target = pdk.header(handle, ":path"):gsub("[^!-~]", pdk.url.encode)
  if #target > LONGEST_PATH then
    target = "/"
  end
  local flow, browser = random(handle):sub(1, 16), random(handle)
  local nonce, verifier = secrets(flow, browser)
  local state = pdk.base64.encode_url(pdk.json.encode({ f = flow, p = target, u = os.time() + PATIENCE }))
  redirect(handle, with(config.authorization, {
    "response_type", "code",
    "client_id", config.client_id,
    "redirect_uri", redirect_uri(handle),
    "scope", config.scope,
    "state", state .. "." .. seal("state", state .. "\n" .. browser),
    "nonce", nonce,
    "code_challenge", pdk.base64.encode_url(pdk.hex.decode(pdk.sha256(verifier))),
    "code_challenge_method", "S256",
  }), { LOGIN .. flow .. "=" .. browser .. ATTRIBUTES .. PATIENCE })
end

-- state_of reads a state. Whether this gateway made it for this browser is known only with a secret.
local function state_of(handle, text)
  local sealed, signature = text:match("^([%w_-]+)%.([%w_-]+)$")
  local decoded = sealed and pdk.base64.decode_url(sealed)
  local state = decoded and pdk.json.decode(decoded)
  if type(state) ~= "table" or type(state.f) ~= "string" or type(state.p) ~= "string" or not state.f:find("^[%w_-]+$") then
    return nil
  end
  local browser = pdk.cookie(handle, LOGIN .. state.f)
  if browser and pdk.equal(signature, seal("state", sealed .. "\n" .. browser)) and state.u > os.time() then
    return state, browser
  end
  return state
end

-- The arguments of the callback. A repeated one has no meaning.
local function arguments_of(query)
  local out = {}
  for _, argument in ipairs(pdk.query(query)) do
    if argument.value == true or out[argument.name] then
      return {}
    end
    out[argument.name] = argument.value
  end
  return out
end

-- buy returns the provider's answer to a code; or nil, what went wrong, and whether that is the provider's fault.
local function buy(handle, code, verifier)
  local headers = { host = config.token_host, ["content-type"] = "application/x-www-form-urlencoded", accept = "application/json" }
  local form = { "grant_type", "authorization_code", "code", code, "redirect_uri", redirect_uri(handle), "code_verifier", verifier }
  if config.post then
    for _, text in ipairs({ "client_id", config.client_id, "client_secret", config.client_secret }) do
      form[#form + 1] = text
    end
  else
    local pair = pdk.url.encode(config.client_id) .. ":" .. pdk.url.encode(config.client_secret)
    headers.authorization = "Basic " .. pdk.base64.encode(pair)
  end
  local answered, answer = pcall(pdk.call, handle, "provider", {
    method = "POST", path = config.token_path, headers = headers, body = with("", form):sub(2), timeout = config.timeout,
  })
  if not answered then
    return nil, tostring(answer), true
  end
  local status, content = answer.status, pdk.json.decode(answer.body)
  if type(content) ~= "table" then
    return nil, "the token endpoint answers " .. status .. " without JSON", true
  elseif status == 200 then
    return content
  end
  local why = type(content.error) == "string" and content.error:match("^[%w_]+$") or ""
  return nil, "the token endpoint answers " .. status .. " " .. why, status >= 500 or why == "invalid_client"
end

local function audience_is(claims, client)
  if type(claims.aud) ~= "table" then
    return claims.aud == client
  end
  for _, audience in ipairs(claims.aud) do
    if audience == client then
      return claims.azp == nil or claims.azp == client
    end
  end
  return false
end

-- claims_of reads an ID token, or says what is wrong with it. It came from the provider itself, so that its signature need
-- not be verified (OpenID Connect Core 1.0, 3.1.3.7, 6).
local function claims_of(token, nonce)
  local payload = type(token) == "string" and token:match("^[%w_-]+%.([%w_-]+)%.[%w_-]*$")
  local decoded = payload and pdk.base64.decode_url(payload)
  local claims = decoded and pdk.json.decode(decoded)
  if type(claims) ~= "table" then
    return nil, "there is no ID token"
  elseif claims.iss ~= config.issuer then
    return nil, "the ID token is of another issuer"
  elseif not audience_is(claims, config.client_id) then
    return nil, "the ID token is for another client"
  elseif type(claims.exp) ~= "number" or claims.exp <= os.time() - SKEW then
    return nil, "the ID token is expired"
  elseif not pdk.equal(claims.nonce, nonce) then
    return nil, "the ID token is of another login"
  elseif type(claims.sub) ~= "string" or claims.sub == "" or claims.sub:find("%c") then
    return nil, "the ID token has no subject"
  end
  return claims
end

-- text_of is t[key] as a header holds it, numbers as they were written; nil for what is no text, number, boolean or list of
-- these.
local function text_of(t, key)
  local value = t[key]
  if type(value) == "number" then
    return (pdk.json.text(t, key))
  elseif type(value) == "boolean" then
    return tostring(value)
  elseif type(value) == "string" then
    return value ~= "" and not value:find("%c") and value or nil
  elseif type(value) ~= "table" then
    return nil
  end
  local out = {}
  for i, item in ipairs(value) do
    out[#out + 1] = type(item) ~= "table" and text_of(value, i) or nil
  end
  return out[1] and table.concat(out, ",")
end

-- session_from makes the session of a login and its encrypted token; or nil and why there cannot be one.
local function session_from(handle, answer, claims)
  local session = { e = os.time() + config.ttl, s = claims.sub, h = {} }
  for i, header in ipairs(config.claim_headers) do
    session.h[tostring(i)] = text_of(claims, header.claim)
  end
  if not config.forward then
    return session, ""
  end
  local token, lasts = answer.access_token, tonumber(answer.expires_in)
  if type(token) ~= "string" or token == "" or token:find("[%c ]") then
    return nil, "there is no access token"
  end
  if lasts and lasts > 0 then
    session.e = math.min(session.e, os.time() + math.floor(lasts))
  end
  session.k = random(handle)
  return session, mask(session.k, token)
end

-- finish is the way back from the provider.
local function finish(handle, query)
  local arguments = arguments_of(query)
  local state, browser = state_of(handle, arguments.state or "")
  if not browser then
    -- A tab that comes late, or again, is no harm to who is logged in.
    if state and session_of(handle) and state.p:find("^/[!-~]*$") then
      redirect(handle, origin(handle) .. state.p)
    end
    refuse(handle, "the state is not one of this browser, or too old")
  end
  local over = expired(LOGIN .. state.f)
  if not arguments.code or arguments.code == "" then
    refuse(handle, "the provider says " .. ((arguments.error or ""):match("^[%w_]+$") or "nothing"), over)
  end
  local nonce, verifier = secrets(state.f, browser)
  local answer, why, provider = buy(handle, arguments.code, verifier)
  if not answer then
    (provider and unavailable or refuse)(handle, why, over)
  end
  local claims, wrong = claims_of(answer.id_token, nonce)
  if not claims then
    refuse(handle, wrong, over)
  end
  local session, token = session_from(handle, answer, claims)
  if not session then
    refuse(handle, token, over)
  end
  local cookies = session_cookies(session, token)
  if not cookies then
    unavailable(handle, "tokens and claims are too long for cookies", over)
  end
  cookies[#cookies + 1] = over
  redirect(handle, origin(handle) .. state.p, cookies)
end

local function logout(handle)
  local cookies, target = { expired(SESSION) }, config.after_logout
  for i = 2, MOST_PIECES do
    if pdk.cookie(handle, SESSION .. "-" .. i) then
      cookies[#cookies + 1] = expired(SESSION .. "-" .. i)
    end
  end
  if target:find("^/") then
    target = origin(handle) .. target
  end
  if config.end_session then
    target = with(config.end_session, { "client_id", config.client_id, "post_logout_redirect_uri", target })
  end
  redirect(handle, target, cookies)
end

-- navigates says whether a browser would show what it is redirected to. Scripts, images and forms that are sent get 401.
local function navigates(handle)
  local method, mode = pdk.header(handle, ":method"), pdk.header(handle, "sec-fetch-mode")
  if method ~= "GET" and method ~= "HEAD" or mode and mode ~= "navigate" then
    return false
  end
  for _, deny in ipairs(config.deny) do
    local value = pdk.header(handle, deny.name)
    if value and (not deny.value or deny.value == value) then
      return false
    end
  end
  return true
end

-- hide takes the plugin's cookies out of the request: whoever has them is the user.
local function hide(handle)
  local kept, hidden = {}, false
  for _, line in ipairs(pdk.headers(handle, "cookie")) do
    for pair in line:gmatch("[^;]+") do
      pair = pair:match("^%s*(.-)%s*$")
      if pair:sub(1, #SESSION) == SESSION then
        hidden = true
      else
        kept[#kept + 1] = pair
      end
    end
  end
  if hidden then
    pdk.remove_header(handle, "cookie")
    if kept[1] then
      pdk.set_header(handle, "cookie", table.concat(kept, "; "))
    end
  end
end

local function introduce(handle, session, token)
  for i, header in ipairs(config.claim_headers) do
    local text = session.h[tostring(i)]
    if text then
      pdk.set_header(handle, header.header, text)
    end
  end
  if session.k then
    pdk.set_header(handle, "authorization", "Bearer " .. mask(session.k, token))
  end
  pdk.authenticate(handle, {}, session.s, "oidc")
end

local function request(handle)
  pdk.clear_identity(handle)
  local path, query = pdk.path(handle)
  if path == config.callback then
    finish(handle, query)
  elseif path == config.logout then
    logout(handle)
  end
  for _, header in ipairs(config.claim_headers) do
    pdk.remove_header(handle, header.header)
  end
  local earlier = config.one_is_enough and pdk.consumer(handle)
  if not earlier or earlier.anonymous then
    local session, token = session_of(handle)
    if not session then
      if navigates(handle) then
        begin(handle)
      end
      pdk.fail(handle, 401, "Unauthorized", { request_id = true })
    end
    introduce(handle, session, token)
  end
  hide(handle)
end

return { request = request }
