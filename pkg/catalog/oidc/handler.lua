-- oidc: a browser is sent to an OpenID provider, comes back with a code, and the code buys an ID token, whose claims go
-- into a signed cookie. The gateway keeps nothing: a login that has begun is a cookie, too.
--
-- What is signed, and all secrets of a login, come from config.key, each by a purpose of its own. So what was made for one
-- purpose is worth nothing for another.

local config = ...

-- How long a user may take at the provider, and by how much the clocks may differ, in seconds.
local PATIENCE, SKEW = 600, 60

-- How long tokens are good where the provider does not say, in seconds: the access token, and the refresh token, for which
-- Envoy's oauth2 filter takes as much.
local USUAL_ACCESS, USUAL_REFRESH = 3600, 604800

-- A session is renewed up to so many seconds before it ends: requests that come meanwhile go on with the old one.
local EARLY = 30

-- A longer path is not come back to: it would not fit into a URL.
local LONGEST_PATH = 1024

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

-- mask encrypts and decrypts: xor with a key as long as the text, of a seed that is used once for a purpose (the one-step
-- key derivation of NIST SP 800-56C: digests of a counter and a secret).
local function mask(purpose, seed, text)
  local secret, out = digest(purpose, seed), {}
  for from = 1, #text, 32 do
    local block = pdk.hex.decode(pdk.sha256(("%08d"):format(from) .. secret))
    for i = from, math.min(from + 31, #text) do
      out[i] = string.char(bit.bxor(text:byte(i), block:byte(i - from + 1)))
    end
  end
  return table.concat(out)
end

local function scheme(handle)
  return pdk.header(handle, "x-forwarded-proto") or pdk.header(handle, ":scheme") or "https"
end

-- The URL of this host, without path.
local function origin(handle)
  return config.origin or scheme(handle) .. "://" .. pdk.header(handle, ":authority")
end

-- The URL of this host where a browser may have to come back to it from another host of the domain; else nil.
local function shared_origin(handle)
  local authority = pdk.header(handle, ":authority"):lower()
  local host = authority:match("^([^:]*)")
  if config.domain and ("." .. host):sub(-#config.domain - 1) == "." .. config.domain then
    return scheme(handle) .. "://" .. authority
  end
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

local ESCAPED = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

-- arrive sends a browser to a page with its new session. A browser sends a cookie that is Strict only where a page of this
-- site sends it, and a redirect on the way from the provider is none.
local function arrive(handle, location, cookies)
  if config.same_site ~= "Strict" then
    redirect(handle, location, cookies)
  end
  local page = '<!DOCTYPE html><meta http-equiv="refresh" content="0; url=' .. location:gsub("[&<>\"']", ESCAPED) .. '">'
  pdk.exit(handle, 200, { ["set-cookie"] = cookies, ["cache-control"] = "no-store", ["content-type"] = "text/html" }, page)
end

local function expired(name)
  return name .. "=" .. SESSION_ATTRIBUTES .. "0"
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

-- The session is base64url of JSON: {e: when it ends, s: the subject, h: upstream headers by number, k: the seed of its
-- tokens, r: when to renew it, u: until when it can be renewed}; a dot, and base64url of the encrypted access token or
-- nothing; with a refresh token a dot, and that one, too; a dot, and the seal of all that. In the first cookie the number of
-- cookies stands before it.

local function session_cookies(session)
  local values = { e = session.e, s = session.s, h = session.h, k = session.k, r = session.r, u = session.u }
  local text = pdk.base64.encode_url(pdk.json.encode(values)) .. "." .. pdk.base64.encode_url(session.token)
  if session.refresh then
    text = text .. "." .. pdk.base64.encode_url(session.refresh)
  end
  text = text .. "." .. seal("session", text)
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

-- session_of returns the session of a request, or nil. It may have ended, if it can be renewed.
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
  local json, token, refresh = sealed:match("^([^.]*)%.([^.]*)%.?([^.]*)$")
  local session = pdk.json.decode(pdk.base64.decode_url(json))
  session.token = pdk.base64.decode_url(token)
  session.refresh = refresh ~= "" and pdk.base64.decode_url(refresh) or nil
  local renewable = config.refresh and session.refresh and session.u > os.time()
  if session.e > os.time() or renewable then
    return session, renewable and session.r <= os.time()
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
  local state = { f = flow, p = target, o = shared_origin(handle), u = os.time() + PATIENCE }
  state = pdk.base64.encode_url(pdk.json.encode(state))
  redirect(handle, with(config.authorization, {
    "response_type", "code",
    "client_id", config.client_id,
    "redirect_uri", redirect_uri(handle),
    "scope", config.scope,
    "state", state .. "." .. seal("state", state .. "\n" .. browser),
    "nonce", nonce,
    "code_challenge", pdk.base64.encode_url(pdk.hex.decode(pdk.sha256(verifier))),
    "code_challenge_method", "S256",
  }), { LOGIN .. flow .. "=" .. browser .. LOGIN_ATTRIBUTES .. PATIENCE })
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

-- ask returns what the token endpoint answers to a form; or nil, what went wrong, and whether that is the provider's fault.
local function ask(handle, form)
  local headers = { host = config.token_host, ["content-type"] = "application/x-www-form-urlencoded", accept = "application/json" }
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
local function claims_of(token)
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

-- lifetime is a number of seconds in an answer, if there is one.
local function lifetime(answer, field)
  local seconds = tonumber(answer[field])
  return seconds and seconds >= 1 and math.floor(seconds) or nil
end

-- ends says when a session ends that begins now, by what the provider says of the access token.
local function ends(answer)
  local said = lifetime(answer, "expires_in")
  if config.ttl == 0 then
    return os.time() + (said or USUAL_ACCESS)
  end
  return os.time() + math.min(config.ttl, config.forward and said or math.huge)
end

local function is_token(text)
  return type(text) == "string" and text ~= "" and not text:find("[%c ]")
end

-- session_from makes a session of tokens and the ID token's claims, of which a renewal may have none; or it returns nil and
-- why there cannot be one.
local function session_from(handle, answer, claims, before)
  local session = { e = ends(answer), s = before and before.s, h = before and before.h or {}, token = "" }
  if claims then
    session.s, session.h = claims.sub, {}
    for i, header in ipairs(config.claim_headers) do
      session.h[tostring(i)] = text_of(claims, header.claim)
    end
  end
  if config.forward or config.refresh then
    session.k = random(handle)
  end
  if config.forward then
    if not is_token(answer.access_token) then
      return nil, "there is no access token"
    end
    session.token = mask("token", session.k, answer.access_token)
  end
  -- Without a new refresh token the old one stays good (RFC 6749, 6).
  local refresh = is_token(answer.refresh_token) and answer.refresh_token or before and mask("refresh", before.k, before.refresh)
  if config.refresh and refresh then
    session.refresh = mask("refresh", session.k, refresh)
    session.r = session.e - math.min(EARLY, math.floor((session.e - os.time()) / 10))
    session.u = os.time() + (lifetime(answer, "refresh_expires_in") or USUAL_REFRESH)
  end
  return session
end

local TOO_LONG = "tokens and claims are too long for cookies"

-- cookies_for are the cookies of a session, without its refresh token if there is no room for that; nil if there is none
-- for the rest.
local function cookies_for(session)
  local cookies = session_cookies(session)
  if not cookies and session.refresh then
    session.refresh, session.r, session.u = nil, nil, nil
    cookies = session_cookies(session)
  end
  return cookies
end

-- What became of sessions that were to be renewed, by the seeds of their tokens: requests that were sent before the browser
-- had the new cookies come with the old ones. It is {session, cookies}, {} where the provider refuses, or ASKED where there
-- is no answer yet, or none came a moment ago.
local renewals = pdk.cache()
local REMEMBER, ASKED, ASK_AGAIN = 60, {}, 5

-- renewed returns a session and its cookies in the place of an old one, or nil and what went wrong, and whether that is
-- the provider's fault.
local function renewed(handle, old)
  local refresh = mask("refresh", old.k, old.refresh)
  local answer, why, provider = ask(handle, { "grant_type", "refresh_token", "refresh_token", refresh })
  if not answer then
    return nil, why, provider
  end
  local claims
  if answer.id_token ~= nil then
    claims, why = claims_of(answer.id_token)
    if not claims then
      return nil, why
    elseif claims.sub ~= old.s then
      return nil, "the ID token is of another user"
    end
  end
  local session, missing = session_from(handle, answer, claims, old)
  if not session then
    return nil, missing
  end
  local cookies = cookies_for(session)
  if not cookies then
    return nil, TOO_LONG, true
  end
  return session, cookies
end

-- renew returns a session in the place of an old one, and cookies if it is another; nil where there must be a login, or,
-- with true as the third value, where the provider does not answer. What has not ended is good, whatever the provider says.
local function renew(handle, old)
  local known, valid = renewals:get(old.k), old.e > os.time() and old or nil
  if known == ASKED and valid then
    return valid
  elseif known and known ~= ASKED then
    return known.session or valid, known.cookies
  end
  renewals:set(old.k, ASKED, math.ceil(config.timeout / 1000) + 1)
  local session, cookies, provider = renewed(handle, old)
  if session then
    renewals:set(old.k, { session = session, cookies = cookies }, REMEMBER)
    return session, cookies
  end
  pdk.log(handle, provider and "warn" or "info", "session not renewed: " .. cookies)
  if provider then
    renewals:set(old.k, ASKED, ASK_AGAIN)
    return valid, nil, not valid
  end
  renewals:set(old.k, {}, REMEMBER)
  return valid
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
  local answer, why, provider = ask(handle, {
    "grant_type", "authorization_code", "code", arguments.code, "redirect_uri", redirect_uri(handle), "code_verifier", verifier,
  })
  if not answer then
    (provider and unavailable or refuse)(handle, why, over)
  end
  local claims, wrong = claims_of(answer.id_token)
  if claims and not pdk.equal(claims.nonce, nonce) then
    claims, wrong = nil, "the ID token is of another login"
  end
  if not claims then
    refuse(handle, wrong, over)
  end
  local session, missing = session_from(handle, answer, claims)
  if not session then
    refuse(handle, missing, over)
  end
  local cookies = cookies_for(session)
  if not cookies then
    unavailable(handle, TOO_LONG, over)
  end
  cookies[#cookies + 1] = over
  arrive(handle, (state.o or origin(handle)) .. state.p, cookies)
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

-- matches says whether a request has one of some headers.
local function matches(handle, headers)
  for _, header in ipairs(headers) do
    for _, value in ipairs(pdk.headers(handle, header.name)) do
      if (not header.value or header.value == value) and (not header.prefix or value:sub(1, #header.prefix) == header.prefix) then
        return true
      end
    end
  end
  return false
end

-- navigates says whether a browser would show what it is redirected to. Scripts, images and forms that are sent get 401.
local function navigates(handle)
  local method, mode = pdk.header(handle, ":method"), pdk.header(handle, "sec-fetch-mode")
  if method ~= "GET" and method ~= "HEAD" or mode and mode ~= "navigate" then
    return false
  end
  return not matches(handle, config.deny)
end

local function is_own(name)
  return name == SESSION or name:sub(1, #SESSION) == SESSION and name:find("^%-%d$", #SESSION + 1) or name:sub(1, #LOGIN) == LOGIN
end

-- hide takes the plugin's cookies out of the request: whoever has them is the user.
local function hide(handle)
  local kept, hidden = {}, false
  for _, line in ipairs(pdk.headers(handle, "cookie")) do
    for pair in line:gmatch("[^;]+") do
      pair = pdk.trim(pair)
      local name = pair:match("^([^=]*)=")
      if is_own(name and pdk.trim(name) or pair) then
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

local function introduce(handle, session)
  for i, header in ipairs(config.claim_headers) do
    local text = session.h[tostring(i)]
    if text then
      pdk.set_header(handle, header.header, text)
    end
  end
  if config.forward then
    pdk.set_header(handle, "authorization", "Bearer " .. mask("token", session.k, session.token))
  end
  pdk.authenticate(handle, {}, session.s, "oidc")
end

-- authenticate finds the session of a request, or answers it.
local function authenticate(handle)
  local session, late = session_of(handle)
  if late then
    local cookies, unanswered
    session, cookies, unanswered = renew(handle, session)
    if unanswered then
      pdk.fail(handle, 502, "OpenID provider unavailable", { request_id = true })
    end
    if cookies then
      pdk.save(handle, "cookies", cookies)
    end
  end
  if not session then
    if navigates(handle) then
      begin(handle)
    end
    pdk.fail(handle, 401, "Unauthorized", { request_id = true })
  end
  introduce(handle, session)
end

local function request(handle)
  pdk.clear_identity(handle)
  local passes = matches(handle, config.pass)
  local path, query = pdk.path(handle)
  if not passes and path == config.callback then
    finish(handle, query)
  elseif not passes and path == config.logout then
    logout(handle)
  end
  for _, header in ipairs(config.claim_headers) do
    pdk.remove_header(handle, header.header)
  end
  local earlier = config.one_is_enough and pdk.consumer(handle)
  if not passes and (not earlier or earlier.anonymous) then
    authenticate(handle)
  end
  hide(handle)
end

-- response gives the browser the cookies of a renewed session.
local function response(handle)
  for _, cookie in ipairs(pdk.saved(handle, "cookies") or {}) do
    pdk.add_header(handle, "set-cookie", cookie)
  end
end

return { request = request, response = response }
