-- Log lines and the text of errors.

local gsub, tostring, type = string.gsub, tostring, type

local METHODS = {debug = "logDebug", info = "logInfo", warn = "logWarn", error = "logErr"}

-- describe makes a text of what a plugin raised. It calls nothing that a plugin may have put there, such as a __tostring:
-- an error in the handling of an error would leave the filter, and Envoy then lets the request pass.
local function describe(problem)
  if type(problem) == "string" then
    return problem
  elseif type(problem) == "number" then
    return tostring(problem)
  end
  return "an error that is a " .. type(problem)
end

-- log writes one line, whatever the text holds: text from a client must not look like a line of its own.
local function log(handle, level, plugin, text)
  local route = handle:streamInfo():routeName()
  local line = "istio-plugins: plugin " .. plugin .. ", route " .. (route or "") .. ": " .. text
  handle[METHODS[level]](handle, (gsub(line, "%c", " ")))
end

return {describe = describe, log = log, METHODS = METHODS}
