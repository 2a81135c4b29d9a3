-- What of Envoy's own Lua objects plugins must not reach.

local modules = ...
local called = modules.call.called

-- Methods that break what holds between plugins, by a part of the name under which Envoy registers the class:
-- httpCall asks any service that the gateway knows, not only those that a plugin declares;
-- bodyChunks lets the request go upstream, after which no later plugin can refuse it;
-- clearRouteCache lets a changed request go to a route whose plugins did not run;
-- set on filter state (from Envoy 1.40) could change what later slots run.
local DENIED = {
  StreamHandleWrapper = {"httpCall", "bodyChunks", "clearRouteCache"},
  FilterStateWrapper = {"set"},
}

-- methods are the functions of a class without its metamethods. Envoy's classes are their own __index, so that a plugin
-- could call handle.__gc, which destroys an object that Envoy still uses.
local function methods(class)
  local out = {}
  for name, value in next, class do
    if type(name) == "string" and name:sub(1, 2) ~= "__" then
      out[name] = value
    end
  end
  return out
end

-- close takes the denied methods out of a class and puts them into kept.
local function close(name, open, kept)
  for class, denied in next, DENIED do
    if name:find(class, 1, true) then
      for _, method in ipairs(denied) do
        kept[method] = open[method]
        open[method] = nil
      end
    end
  end
end

-- imports_once makes a second import on one handle an error. Envoy returns the key of the first without a word, and a
-- signature would be checked against the key that another plugin brought.
local function imports_once(import)
  local imported = setmetatable({}, {__mode = "k"})
  return function(handle, ...)
    if imported[handle] then
      error("importPublicKey works once for each request and slot", 2)
    end
    imported[handle] = true
    return import(handle, ...)
  end
end

-- reads_before_calls makes body() after a call of the same request function an error. Envoy raises one only if the body came
-- in the meantime, which a test would seldom see.
local function reads_before_calls(body)
  local read = setmetatable({}, {__mode = "k"})
  return function(handle, ...)
    if called[handle] and not read[handle] then
      error("read the body before pdk.call", 2)
    end
    read[handle] = true
    return body(handle, ...)
  end
end

-- harden must run before the first plugin, but after Envoy has registered its classes, which it does when the filter's
-- source has been loaded. It returns the methods that the runtime alone has.
local function harden()
  local kept = {}
  for name, class in next, debug.getregistry() do
    if type(name) == "string" and type(class) == "table" and rawget(class, "__index") == class then
      local open = methods(class)
      close(name, open, kept)
      if open.importPublicKey then
        open.importPublicKey = imports_once(open.importPublicKey)
        open.body = reads_before_calls(open.body)
      end
      class.__index = open
    end
  end
  return kept
end

return harden
