-- correlation-id: the id is the client's own where it sent one.

local config = ...

local header_name = config.header_name

local prefix
local count = 0

local generators = {
  ["uuid"] = pdk.uuid,
  ["uuid#counter"] = function()
    prefix = prefix or pdk.uuid() .. "#"
    count = count + 1
    return ("%s%d"):format(prefix, count)
  end,
}

local generate = generators[config.generator]

local function request(handle)
  local id = pdk.header(handle, header_name)
  if not id or id == "" then
    id = generate()
    pdk.set_header(handle, header_name, id)
  end
  pdk.set_metadata(handle, "plugins.istio.io", "correlation_id", id)
  if config.echo_downstream then
    pdk.save(handle, "id", id)
  end
end

local function echo(handle)
  -- Nothing is saved where an earlier plugin has answered the request.
  pdk.set_header(handle, header_name, pdk.saved(handle, "id") or generate())
end

return { request = request, response = config.echo_downstream and echo or nil }
