-- oidc: a browser is sent to an OpenID provider, comes back with a code, and the code buys an ID token, whose claims go
-- into a signed cookie. The gateway keeps nothing: a login that has begun is a cookie, too.

local config = ...

local LOGIN, with = sessions.LOGIN, provider.with

-- How long a user may take at the provider, in seconds.
local PATIENCE = 600

-- A longer path is not come back to: it would not fit into a URL.
local LONGEST_PATH = 1024

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

-- refuse tells a client nothing and the log why.
local function refuse(handle, why, cookies)
  pdk.log(handle, "info", "login refused: " .. why)
  pdk.fail(handle, 401, "Login failed", { headers = { ["set-cookie"] = cookies }, request_id = true })
end

local function unavailable(handle, why, cookies)
  pdk.log(handle, "warn", "login failed: " .. why)
  pdk.fail(handle, 502, "OpenID provider unavailable", { headers = { ["set-cookie"] = cookies }, request_id = true })
end

-- The secrets of one login, which only this gateway knows: what the token must say, and what the code was asked for with.
local function secrets(flow, browser)
  return sessions.seal("nonce", flow .. "\n" .. browser), sessions.seal("verifier", flow .. "\n" .. browser)
end

-- begin sends the browser to the provider. The state names the login and where to go afterwards; a cookie binds it to this
-- browser, so that nobody can be made to use another's login. Logins have a cookie each, as tabs begin at once.
local function begin(handle)
  local target = pdk.header(handle, ":path"):gsub("[^!-~]", pdk.url.encode)
  if #target > LONGEST_PATH then
    target = "/"
  end
  local flow, browser = sessions.random(handle):sub(1, 16), sessions.random(handle)
  local nonce, verifier = secrets(flow, browser)
  local state = { f = flow, p = target, o = shared_origin(handle), u = os.time() + PATIENCE }
  state = pdk.base64.encode_url(pdk.json.encode(state))
  redirect(handle, with(config.authorization, {
    "response_type", "code",
    "client_id", config.client_id,
    "redirect_uri", redirect_uri(handle),
    "scope", config.scope,
    "state", state .. "." .. sessions.seal("state", state .. "\n" .. browser),
    "nonce", nonce,
    "code_challenge", pdk.base64.encode_url(pdk.hex.decode(pdk.sha256(verifier))),
    "code_challenge_method", "S256",
  }), { LOGIN .. flow .. "=" .. browser .. sessions.LOGIN_ATTRIBUTES .. PATIENCE })
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
  if browser and pdk.equal(signature, sessions.seal("state", sealed .. "\n" .. browser)) and state.u > os.time() then
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

-- finish is the way back from the provider.
local function finish(handle, query)
  local arguments = arguments_of(query)
  local state, browser = state_of(handle, arguments.state or "")
  if not browser then
    -- A tab that comes late, or again, is no harm to who is logged in.
    if state and sessions.of(handle) and state.p:find("^/[!-~]*$") then
      redirect(handle, origin(handle) .. state.p)
    end
    refuse(handle, "the state is not one of this browser, or too old")
  end
  local over = sessions.expired(LOGIN .. state.f)
  if not arguments.code or arguments.code == "" then
    refuse(handle, "the provider says " .. ((arguments.error or ""):match("^[%w_]+$") or "nothing"), over)
  end
  local nonce, verifier = secrets(state.f, browser)
  local answer, why, theirs = provider.ask(handle, {
    "grant_type", "authorization_code", "code", arguments.code, "redirect_uri", redirect_uri(handle), "code_verifier", verifier,
  })
  if not answer then
    (theirs and unavailable or refuse)(handle, why, over)
  end
  local claims, wrong = provider.claims_of(answer.id_token)
  if claims and not pdk.equal(claims.nonce, nonce) then
    claims, wrong = nil, "the ID token is of another login"
  end
  if not claims then
    refuse(handle, wrong, over)
  end
  local session, missing = provider.session_from(handle, answer, claims)
  if not session then
    refuse(handle, missing, over)
  end
  local cookies = provider.cookies_for(session)
  if not cookies then
    unavailable(handle, provider.TOO_LONG, over)
  end
  cookies[#cookies + 1] = over
  arrive(handle, (state.o or origin(handle)) .. state.p, cookies)
end

local function logout(handle)
  local cookies, target = { sessions.expired(sessions.COOKIE) }, config.after_logout
  for i = 2, sessions.PIECES do
    if pdk.cookie(handle, sessions.COOKIE .. "-" .. i) then
      cookies[#cookies + 1] = sessions.expired(sessions.COOKIE .. "-" .. i)
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

-- hide takes the plugin's cookies out of the request: whoever has them is the user.
local function hide(handle)
  local kept, hidden = {}, false
  for _, line in ipairs(pdk.headers(handle, "cookie")) do
    for pair in line:gmatch("[^;]+") do
      pair = pdk.trim(pair)
      local name = pair:match("^([^=]*)=")
      if sessions.is_own(name and pdk.trim(name) or pair) then
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
    pdk.set_header(handle, "authorization", "Bearer " .. sessions.mask("token", session.k, session.token))
  end
  pdk.authenticate(handle, {}, session.s, "oidc")
end

-- authenticate finds the session of a request, or answers it.
local function authenticate(handle)
  local session, late = sessions.of(handle)
  if late then
    local cookies, unanswered
    session, cookies, unanswered = provider.renew(handle, session)
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
