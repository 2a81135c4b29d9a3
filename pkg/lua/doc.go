// Package lua is the runtime in which all Lua plugins of a gateway run. One Envoy Lua filter per slot holds the
// runtime, the sources of all Lua plugins, and tables that are shared between routes; what a request runs comes with
// it, as the value of its slot: a Lua literal, loaded once and remembered.
//
// The runtime itself is Lua, in the .lua files of the folder runtime. The Go side writes its input: Program is the
// filter's source, Chain and Refusal are slot values, Slots says which parts may share a slot, CheckSyntax judges a
// user's chunk beforehand.
//
// # What a plugin is
//
// A plugin is a chunk. It gets its config as `...` and returns a table:
//
//	local config = ...
//	return {
//	  request = function(handle) end,  -- either function may be absent
//	  response = function(handle) end,
//	}
//
// handle is Envoy's own stream handle. Request functions run in the order of the chain, response functions in reverse.
// A chunk that does not load, or does not return a table, makes its routes answer 503 at its place in the chain. An
// error in a function is answered 500, in the response phase by replacing the answer; under FailOpen both are skipped
// instead. Either is logged with the plugin and the route.
//
// A chunk is loaded once for each place in a chain and each worker, when the first request comes, and its locals live
// as long as the chain is remembered. So a local outside the functions is shared by requests, and may be gone at the
// next one.
//
// # The config
//
// Maps and lists are tables, null is absent (in a list, too: what follows moves up), a number is the nearest double.
// A part.Shared is one table for all plugins that name it and must not be written to; the config itself is the
// plugin's own.
//
// # What Envoy does
//
// Headers, body and streamInfo objects end when the stream waits, in body() with a body and in pdk.call: get them again
// afterwards. The functions of pdk always do. Above the listener's buffer limit body() ends the request with 413, and a
// response with 500. By default that is 1 MiB for a client's HTTP/1, and 16 MiB for its HTTP/2: work on a body should have a
// limit of its own.
//
// handle has the methods of Envoy's documentation, except httpCall (pdk.call and pdk.send are for that), bodyChunks
// (the request would go upstream before later plugins ran) and clearRouteCache (it would go to a route whose plugins
// did not run); filter state cannot be set. importPublicKey works once for each plugin and request, since Envoy returns
// the first key again.
//
// # The sandbox
//
// Each entry of a chain has globals of its own. They hold Lua's basic functions, string, table, math, bit and coroutine
// (copies), os.time, os.date and os.clock, and pdk. There is no io, debug, ffi, jit, package, require, load,
// loadstring, loadfile, dofile, getfenv, setfenv, collectgarbage, newproxy, string.dump. getmetatable gives nothing but
// for tables, and _G and JSON values keep theirs. math.randomseed does nothing: all plugins share the random numbers,
// which are seeded. Waiting inside a coroutine works; coroutine.yield outside of one's own is an error.
//
// # The pdk library
//
// Unless said otherwise a function works in both phases, on the request's headers in request functions and on the
// response's in response functions.
//
//	pdk.header(handle, name)            first value of a header, or nil
//	pdk.headers(handle, name)           all values, a list
//	pdk.set_header(handle, name, value) replaces all lines by one. A value is a string or a number; one with CR, LF or NUL
//	                                    is an error, and so is a name that is no token
//	pdk.add_header(handle, name, value) adds a line
//	pdk.remove_header(handle, name)     removes all lines
//	pdk.cookie(handle, name)            value of a cookie, or nil; request phase
//	pdk.path(handle)                    path, query: the path without query, and the query without `?`, or nil where there
//	                                    is none; request phase
//	pdk.set_path(handle, path, query)   query nil: none; request phase
//	pdk.query(text, most)               a list of {name=, value=, raw=}: decoded name, decoded value (true without `=`), the
//	                                    bytes as sent; the first `most` arguments (default 100, math.huge for all). Nothing
//	                                    between two `&` is no argument; nil has none
//	pdk.client_ip(handle)               the trusted client address without port and brackets
//	pdk.route(handle)                   the route's name, "" where it has none
//	pdk.virtual_service(handle)         "<namespace>/<name>" of the route's VirtualService, nil without one
//	pdk.is_grpc(handle)                 whether the request's content-type is application/grpc*
//	pdk.request_id(handle)              the request's x-request-id
//	pdk.exit(handle, status, headers, body)
//	                                    answers the request and does not return; in the response phase it replaces the answer
//	                                    and returns. headers is a map name -> value or list of values, status is 200 to 599;
//	                                    204 and 304 go without body. A body is a string, or a table, which is written as JSON with
//	                                    the content-type application/json unless headers has another. The upstream's headers about its body
//	                                    (content-type, etag, ...) go; a gRPC response, event stream or upgrade, which must not be buffered,
//	                                    loses its body.
//	                                    The plugin is noted as rejected_by in the dynamic metadata namespace plugins.istio.io, as is
//	                                    one that fails
//	pdk.drop_body(handle)               the response loses its body, however large it is, unless a plugin answers in its place;
//	                                    response phase
//	pdk.fail(handle, status, message, options)
//	                                    answers {"message": message}; options: headers = {...}, request_id = true adds "request_id".
//	                                    A request that Envoy takes for gRPC (application/grpc, application/grpc+*) gets the bare
//	                                    message instead of JSON, with the grpc-status that Envoy gives to status, 8 for 429
//	                                    and 413, or that of options.headers. Does not return
//	pdk.call(handle, service, request)  asks a service that the Plugin declares under this name (spec.lua.services) and waits for
//	                                    the answer, a table {status = number, headers = map, body = string}. headers has lower-case
//	                                    names and strings, or a list of strings where a header came several times, and none that say
//	                                    how the message was sent, so that pdk.exit takes it as it is.
//	                                    request may have method (default GET), path with query (default /), headers (as for pdk.exit;
//	                                    Host is the service's unless it is set here), body (string) and timeout (milliseconds, 1 to
//	                                    300000, default 5000). Whatever status the service answers is an answer. An error is raised
//	                                    where it does not answer: no endpoint, refused connection, timeout, a broken or too large
//	                                    answer (Envoy takes 32 MiB), a service that this gateway does not know; and where the plugin
//	                                    does not declare it, or request is wrong. So a plugin that does not catch it, by
//	                                    pcall(pdk.call, ...), fails. Nothing is tried again.
//	                                    In the request phase handle:body() must come before it, or it is an error. In the response
//	                                    phase it waits for the whole body of the response first, and is an error for
//	                                    application/grpc*, text/event-stream and upgrades (101). The source should have the words
//	                                    pdk.call: plugins that follow it then run in a filter of their own
//	pdk.send(handle, service, request)  asks a service and waits for nothing: true, or false where it was not sent, because 100 of
//	                                    these calls to this service are on their way, in this worker and slot. Envoy does not tell
//	                                    when one ends, so each counts until its timeout. request may also have in_flight, another
//	                                    number (1 to 1000). Errors are raised where the service is not declared or not known, or
//	                                    request is wrong; whether it answers is not known
//	pdk.save(handle, key, value)        keeps a value (string, number, boolean, table of these) of this request for this
//	                                    entry's other function (response), by dynamic metadata
//	pdk.saved(handle, key)              what was kept, or nil
//	pdk.metadata(handle, namespace, key)
//	                                    dynamic metadata written by Envoy filters or plugins, or nil
//	pdk.set_metadata(handle, namespace, key, value)
//	pdk.consumer(handle)                the authenticated consumer {id, username, custom_id, name, groups, anonymous,
//	                                    credential_id}, or nil; what it does not have is nil, groups is a list
//	pdk.authenticate(handle, consumer, credential_id, plugin)
//	                                    establishes the consumer, in the place of one established before: dynamic metadata
//	                                    namespace plugins.istio.io (consumer_id, consumer_username, consumer_custom_id,
//	                                    consumer_name, groups, credential_id, anonymous, authenticated_by; what it does not have is
//	                                    "") and the upstream headers X-Consumer-ID, X-Consumer-Custom-ID, X-Consumer-Username,
//	                                    X-Credential-Identifier, X-Anonymous-Consumer; X-Consumer-Groups is removed.
//	                                    consumer.anonymous = true marks the anonymous one, which has no credential; request phase. A
//	                                    plugin that decides by the consumer, such as acl, needs one before it whose source has the
//	                                    words pdk.authenticate
//	pdk.clear_identity(handle)          removes these headers and X-Consumer-Groups, which a client may have sent, unless a
//	                                    plugin of this request has already authenticated; also such as X_Consumer_ID, which
//	                                    upstreams may take for them; request phase
//	pdk.json.decode(text)               value, or nil and an error. Numbers are numbers, and those in lists and objects keep
//	                                    their text; `[]` stays apart from `{}`; null is pdk.json.null; objects keep the order
//	                                    of their keys, of equal ones the last wins; nesting above 64, invalid UTF-8 and half
//	                                    surrogate pairs are errors
//	pdk.json.encode(value)              text, or nil and an error. A table whose keys are 1 to n is a list, an empty one is
//	                                    `{}` unless it was decoded from, or marked as, a list
//	pdk.json.text(t, key)               the text that encode writes for t[key] in t, or nil and an error
//	pdk.json.array(t)                   marks t as a list, so that an empty one is `[]`; returns t
//	pdk.url.decode(text, plus)          percent-decoding; plus: `+` is a blank; a `%` without two hex digits stays
//	pdk.url.encode(text)                all but RFC 3986's unreserved characters
//	pdk.url.parse(text)                 a table of a URL's scheme, userinfo, host (no brackets), port (a number), path, query and
//	                                    fragment, nothing decoded, scheme and host in lower case; what it does not have is nil,
//	                                    but path is "". nil where it is no URL or reference to one (RFC 3986)
//	pdk.ip.parse(text)                  string: the 4 or 16 bytes of an IP address, or nil where it is none. An IPv4-mapped IPv6
//	                                    address (::ffff:10.0.0.1) is the IPv4 address; zones (%eth0) and leading zeros are refused
//	pdk.ip.ranges(list)                 a function that says whether an address, a string, is in one of a list of addresses and CIDR
//	                                    ranges, of IPv4 and IPv6; false for what is no address. Bits behind a range's length do not
//	                                    matter, and ::/0 holds no IPv4 address. It is an error where one of them is no range: make it
//	                                    when the chunk is loaded, local allowed = pdk.ip.ranges(config.allow)
//	pdk.cache(most)                     a cache for what may be lost, of this entry in this worker, as long as the chain is
//	                                    remembered. It has at most `most` entries (10 to 100000, default 1000); of these the half
//	                                    that was used last is surely kept
//	cache:get(key)                      value, or nil; a key is a string or a number
//	cache:set(key, value, seconds)      keeps any value but nil, which forgets the key; for so many seconds if they are given
//	pdk.trim(text)                      the text without white space at its ends. A pattern such as "^%s*(.-)%s*$" takes seconds
//	                                    where a client sends a header of blanks
//	pdk.base64.encode(text), decode(text), encode_url(text), decode_url(text)
//	                                    encode pads, encode_url does not; decode takes both and is nil where it is no base64
//	pdk.hex.encode(text), decode(text)  lower-case hex digits; decode takes both cases and is nil where it is no hex
//	pdk.sha1(text), sha256(text), sha384(text), sha512(text)
//	                                    string: the digest in hex
//	pdk.hmac(algorithm, key, text)      string: the HMAC in hex; algorithm: sha1, sha256, sha384, sha512. key and text are
//	                                    strings of any bytes: decode hex or base64 before
//	pdk.equal(a, b)                     boolean: whether two strings are equal, in a time that does not tell where they
//	                                    differ; false where one is no string
//	pdk.date(text)                      number: seconds since 1970 of an HTTP date in any of its three forms, or nil
//	pdk.uuid()                          a version 4 UUID; unique, not secret
//	pdk.log(handle, level, text)        level: debug, info, warn, error; one line with the plugin's and the route's name
//
// With Envoy before 1.40 the response phase cannot read the request. What pdk tells there of it (is_grpc, request_id) is
// saved when the slot's request functions begin, so it is missing where an earlier filter answered.
package lua
