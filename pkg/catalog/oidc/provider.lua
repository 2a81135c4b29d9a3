-- The provider: codes and refresh tokens buy tokens, and those make sessions.

local config = ...

local provider = {}

-- By how much the clocks may differ, in seconds.
local SKEW = 60

-- How long tokens are good where the provider does not say, in seconds: the access token, and the refresh token, for which
-- Envoy's oauth2 filter takes as much.
local USUAL_ACCESS, USUAL_REFRESH = 3600, 604800

-- A session is renewed up to so many seconds before it ends: requests that come meanwhile go on with the old one.
local EARLY = 30

-- A URL with further arguments, a list of name, value, name, value.
local function with(url, arguments)
  local out = {}
  for i = 1, #arguments, 2 do
    out[#out + 1] = arguments[i] .. "=" .. pdk.url.encode(arguments[i + 1])
  end
  return url .. (url:find("?", 1, true) and "&" or "?") .. table.concat(out, "&")
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
function provider.claims_of(token)
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
function provider.session_from(handle, answer, claims, before)
  local session = { e = ends(answer), s = before and before.s, h = before and before.h or {}, token = "" }
  if claims then
    session.s, session.h = claims.sub, {}
    for i, header in ipairs(config.claim_headers) do
      session.h[tostring(i)] = text_of(claims, header.claim)
    end
  end
  if config.forward or config.refresh then
    session.k = sessions.random(handle)
  end
  if config.forward then
    if not is_token(answer.access_token) then
      return nil, "there is no access token"
    end
    session.token = sessions.mask("token", session.k, answer.access_token)
  end
  -- Without a new refresh token the old one stays good (RFC 6749, 6).
  local refresh = is_token(answer.refresh_token) and answer.refresh_token or before and sessions.mask("refresh", before.k, before.refresh)
  if config.refresh and refresh then
    session.refresh = sessions.mask("refresh", session.k, refresh)
    session.r = session.e - math.min(EARLY, math.floor((session.e - os.time()) / 10))
    session.u = os.time() + (lifetime(answer, "refresh_expires_in") or USUAL_REFRESH)
  end
  return session
end

local TOO_LONG = "tokens and claims are too long for cookies"

-- cookies_for are the cookies of a session, without its refresh token if there is no room for that; nil if there is none
-- for the rest.
function provider.cookies_for(session)
  local cookies = sessions.cookies(session)
  if not cookies and session.refresh then
    session.refresh, session.r, session.u = nil, nil, nil
    cookies = sessions.cookies(session)
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
  local refresh = sessions.mask("refresh", old.k, old.refresh)
  local answer, why, theirs = ask(handle, { "grant_type", "refresh_token", "refresh_token", refresh })
  if not answer then
    return nil, why, theirs
  end
  local claims
  if answer.id_token ~= nil then
    claims, why = provider.claims_of(answer.id_token)
    if not claims then
      return nil, why
    elseif claims.sub ~= old.s then
      return nil, "the ID token is of another user"
    end
  end
  local session, missing = provider.session_from(handle, answer, claims, old)
  if not session then
    return nil, missing
  end
  local cookies = provider.cookies_for(session)
  if not cookies then
    return nil, TOO_LONG, true
  end
  return session, cookies
end

-- renew returns a session in the place of an old one, and cookies if it is another; nil where there must be a login, or,
-- with true as the third value, where the provider does not answer. What has not ended is good, whatever the provider says.
function provider.renew(handle, old)
  local known, valid = renewals:get(old.k), old.e > os.time() and old or nil
  if known == ASKED and valid then
    return valid
  elseif known and known ~= ASKED then
    return known.session or valid, known.cookies
  end
  renewals:set(old.k, ASKED, math.ceil(config.timeout / 1000) + 1)
  local session, cookies, theirs = renewed(handle, old)
  if session then
    renewals:set(old.k, { session = session, cookies = cookies }, math.min(REMEMBER, session.e - os.time()))
    return session, cookies
  end
  pdk.log(handle, theirs and "warn" or "info", "session not renewed: " .. cookies)
  if theirs then
    renewals:set(old.k, ASKED, ASK_AGAIN)
    return valid, nil, not valid
  end
  renewals:set(old.k, {}, REMEMBER)
  return valid
end

provider.ask, provider.with, provider.TOO_LONG = ask, with, TOO_LONG

return provider
