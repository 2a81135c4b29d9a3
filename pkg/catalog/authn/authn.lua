-- What every plugin that authenticates does around finding out who calls.

local authn = {}

-- request makes a plugin's request function. identify(handle) returns the consumer and the credential's id, or nil and
-- what is wrong, which refuse(handle, problem) tells the client. hide(handle), if there is one, removes the credential,
-- also where nobody asks for it: the upstream is not to see it.
function authn.request(config, plugin, identify, refuse, hide)
  hide = hide or function() end
  return function(handle)
    if config.preflight == false and pdk.header(handle, ":method") == "OPTIONS" then
      pdk.clear_identity(handle) -- pdk.authenticate does it otherwise
      hide(handle)
      return
    end
    local earlier = config.anonymous and pdk.consumer(handle)
    if earlier and not earlier.anonymous then
      hide(handle)
      return -- an earlier plugin has authenticated, and one is enough
    end
    local consumer, detail = identify(handle)
    if not consumer and not config.anonymous then
      refuse(handle, detail)
      error("refuse returned") -- it must not: nobody is authenticated
    end
    hide(handle)
    if consumer then
      pdk.authenticate(handle, consumer, detail, plugin)
    else
      pdk.authenticate(handle, config.anonymous, nil, plugin)
    end
  end
end

-- unauthorized makes a refuse that answers 401 with a message and config.challenge.
function authn.unauthorized(config)
  return function(handle, message)
    pdk.fail(handle, 401, message, { headers = { ["www-authenticate"] = config.challenge }, request_id = true })
  end
end

return authn
