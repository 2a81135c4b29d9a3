-- Tokens in requests and what is answered about them, for both ways to verify one.

local token = {}

-- Longer tokens are not looked at. Decoding takes time, and who sent them is not known yet.
token.LONGEST = 16384

local function set_of(names)
  local set = {}
  for _, name in ipairs(names) do
    set[name] = true
  end
  return set
end

-- What follows the scheme Bearer, which may be written in any case; nil for another scheme. Envoy joins repeated
-- Authorization headers by a comma, where the first one's token ends.
local function bearer(value)
  local scheme, rest = value:match("^%s*(%a+)%s+([^,]*)")
  if scheme and scheme:lower() == "bearer" then
    return pdk.trim(rest)
  end
end

-- finder makes a function that returns the token of a request; or nil, and whether there are several. The same token
-- in two places is one, and an empty one is none.
function token.finder(config)
  local is_parameter = set_of(config.parameters)
  return function(handle)
    local found, several
    local function see(text)
      if not text or text == "" then
        return
      end
      several = several or found ~= nil and found ~= text
      found = text
    end
    if next(is_parameter) then
      local _, query = pdk.path(handle)
      for _, argument in ipairs(pdk.query(query)) do
        if is_parameter[argument.name] and argument.value ~= true then
          see(argument.value)
        end
      end
    end
    for _, name in ipairs(config.cookies) do
      see(pdk.cookie(handle, name))
    end
    for _, name in ipairs(config.headers) do
      local value = pdk.header(handle, name)
      see(value and bearer(value))
    end
    if several then
      return nil, true
    end
    return found
  end
end

-- Problems. One without a token is about its absence.

token.MISSING = { message = "Unauthorized" }

function token.invalid(message)
  return { message = message, invalid = true }
end

local SEVERAL = token.invalid("Multiple tokens provided")

-- missing is the problem of a request in which no token, or not the only one, was found.
function token.missing(several)
  return several and SEVERAL or token.MISSING
end

-- The address of the request as the realm, where none is configured for issuers.
local function address(handle)
  local url = (pdk.header(handle, ":scheme") or "http") .. "://" .. (pdk.header(handle, ":authority") or "")
  url = (url .. pdk.path(handle)):sub(1, 256)
  return (url:gsub('[\\"]', "\\%0"))
end

-- refuser makes the function that answers 401 for a problem.
function token.refuser(config)
  return function(handle, problem)
    local challenge = config.challenge or 'Bearer realm="' .. address(handle) .. '"'
    if problem.invalid then
      challenge = challenge .. (challenge == "Bearer" and " " or ", ") .. 'error="invalid_token"'
    end
    local headers = { ["www-authenticate"] = challenge }
    if problem.claims and not pdk.is_grpc(handle) then
      headers["content-type"] = "application/json; charset=utf-8"
      pdk.exit(handle, 401, headers, pdk.json.encode(problem.claims))
    end
    pdk.fail(handle, 401, problem.message, { headers = headers })
  end
end

-- Claims about time.

local CHECKS = {
  exp = function(exp, now, skew) return exp + skew <= now and "token expired" or nil end,
  nbf = function(nbf, now, skew) return nbf - skew > now and "token not valid yet" or nil end,
}

-- timely checks one claim, if it is a number; returns what is wrong with it.
function token.timely(claims, name, skew)
  local value = claims[name]
  return type(value) == "number" and CHECKS[name](value, os.time(), skew) or nil
end

-- check_claims checks the claims that must be there; returns a problem, or nil.
function token.check_claims(config, claims)
  local wrong, texts = {}, {}
  for _, name in ipairs(config.verify) do
    if type(claims[name]) ~= "number" then
      wrong[name] = "must be a number"
    else
      wrong[name] = token.timely(claims, name, config.skew)
    end
    if wrong[name] then
      texts[#texts + 1] = name .. ": " .. wrong[name]
    end
  end
  if not texts[1] and config.longest > 0 and claims.exp - os.time() > config.longest then
    wrong.exp = "exceeds maximum allowed expiration"
    texts[1] = "exp: " .. wrong.exp
  end
  return texts[1] and { claims = wrong, message = table.concat(texts, ", "), invalid = true } or nil
end

return token
