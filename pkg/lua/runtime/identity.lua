-- Who the client is, as one plugin establishes it and the others and the upstream see it.

local modules = ...
local pdk = modules.stream.pdk

local find, gsub, ipairs, pairs, type = string.find, string.gsub, ipairs, pairs, type

local NAMESPACE = "plugins.istio.io"

-- Identity headers by the field of the metadata that each carries. Kong's names.
local HEADERS = {
  consumer_id = "x-consumer-id",
  consumer_custom_id = "x-consumer-custom-id",
  consumer_username = "x-consumer-username",
  credential_id = "x-credential-identifier",
  anonymous = "x-anonymous-consumer",
}

-- Which groups were allowed is for acl to say; what a client claims goes with the rest.
local GROUPS_HEADER = "x-consumer-groups"

local IS_IDENTITY = { [GROUPS_HEADER] = true }
for _, name in pairs(HEADERS) do
  IS_IDENTITY[name] = true
end

local identity = {}

local function established(handle)
  return handle:streamInfo():dynamicMetadata():get(NAMESPACE)
end

local function text(value)
  if type(value) == "string" and value ~= "" then
    return value
  end
  return nil
end

function identity.clear_identity(handle)
  local known = established(handle)
  if known and known.authenticated_by then
    return
  end
  local headers = handle:headers()
  local forged = {}
  for name in pairs(headers) do
    -- Upstreams that make variables of headers, as CGI does, take x_consumer_id for x-consumer-id.
    if IS_IDENTITY[name] or find(name, "[^%w%-]", 2) and IS_IDENTITY[gsub(name, "%W", "-")] then
      forged[#forged + 1] = name
    end
  end
  for _, name in ipairs(forged) do
    headers:remove(name)
  end
end

function identity.authenticate(handle, consumer, credential_id, plugin)
  identity.clear_identity(handle)
  local anonymous = consumer.anonymous == true
  local fields = {
    consumer_id = text(consumer.id) or "",
    consumer_username = text(consumer.username) or "",
    consumer_custom_id = text(consumer.custom_id) or "",
    consumer_name = text(consumer.name) or "",
    credential_id = not anonymous and text(credential_id) or "",
    authenticated_by = plugin,
  }
  local headers = handle:headers()
  headers:remove(GROUPS_HEADER) -- of who was established before
  for field, name in pairs(HEADERS) do
    local value = fields[field]
    if field == "anonymous" then
      value = anonymous and "true" or ""
    end
    -- Envoy would take a value with a line break and fail the request at the upstream.
    if value == "" or find(value, "[%z\r\n]") then
      headers:remove(name)
    else
      headers:replace(name, value)
    end
  end
  local metadata = handle:streamInfo():dynamicMetadata()
  for field, value in pairs(fields) do
    metadata:set(NAMESPACE, field, value)
  end
  metadata:set(NAMESPACE, "anonymous", anonymous)
  metadata:set(NAMESPACE, "groups", consumer.groups or {})
end

function identity.consumer(handle)
  local known = established(handle)
  if not known or not known.authenticated_by then
    return nil
  end
  return {
    id = text(known.consumer_id),
    username = text(known.consumer_username),
    custom_id = text(known.consumer_custom_id),
    name = text(known.consumer_name),
    groups = known.groups or {},
    anonymous = known.anonymous == true,
    credential_id = text(known.credential_id),
  }
end

return identity
