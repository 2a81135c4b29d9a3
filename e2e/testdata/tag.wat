;; A proxy-wasm module for tests: it adds its configuration to each request as one more x-chain header.
;;
;; Plugins of the same module share a VM, so what belongs to one of them is kept by its context's number. Plugins and
;; requests are numbered in one go. There are few plugins, in a list; the table of requests has 1024 places and uses a
;; number's last ten bits, which is enough for those that are open at the same time.
(module
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))

  (memory (export "memory") 4)
  (data (i32.const 16) "x-chain")

  ;; Where the next allocation goes. Nothing is freed: only configurations are allocated.
  (global $free (mut i32) (i32.const 65536))

  ;; How many plugins there are.
  (global $plugins (mut i32) (i32.const 0))

  ;; The place of a plugin's configuration, an address and a length. Each has 12 bytes: its context's number stands before.
  (func $configuration (param $plugin i32) (result i32)
    (local $entry i32)
    (local $end i32)
    (local.set $entry (i32.const 1024))
    (local.set $end (i32.add (i32.const 1024) (i32.mul (global.get $plugins) (i32.const 12))))
    (block $found
      (loop $next
        (if (i32.ge_u (local.get $entry) (local.get $end))
          (then
            (i32.store (local.get $entry) (local.get $plugin))
            (global.set $plugins (i32.add (global.get $plugins) (i32.const 1)))
            (br $found)))
        (br_if $found (i32.eq (i32.load (local.get $entry)) (local.get $plugin)))
        (local.set $entry (i32.add (local.get $entry) (i32.const 12)))
        (br $next)))
    (i32.add (local.get $entry) (i32.const 4)))

  ;; The place of the number of a request's plugin, 4 bytes for each request.
  (func $plugin (param $request i32) (result i32)
    (i32.add (i32.const 16384) (i32.shl (i32.and (local.get $request) (i32.const 1023)) (i32.const 2))))

  (func (export "malloc") (param $size i32) (result i32)
    (local $place i32)
    (local.set $place (global.get $free))
    ;; The next multiple of 16.
    (global.set $free
      (i32.and (i32.add (i32.add (global.get $free) (local.get $size)) (i32.const 15)) (i32.const -16)))
    (local.get $place))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_vm_start") (param $context i32) (param $size i32) (result i32)
    (i32.const 1))

  ;; A plugin's own context has no parent; that of a request has its plugin.
  (func (export "proxy_on_context_create") (param $context i32) (param $parent i32)
    (if (local.get $parent)
      (then (i32.store (call $plugin (local.get $context)) (local.get $parent)))))

  (func (export "proxy_on_configure") (param $context i32) (param $size i32) (result i32)
    (local $place i32)
    (local.set $place (call $configuration (local.get $context)))
    ;; Buffer 7 is the plugin's configuration.
    (drop (call $get_buffer (i32.const 7) (i32.const 0) (local.get $size)
      (local.get $place) (i32.add (local.get $place) (i32.const 4))))
    (i32.const 1))

  (func (export "proxy_on_request_headers") (param $context i32) (param $count i32) (param $end i32) (result i32)
    (local $place i32)
    (local.set $place (call $configuration (i32.load (call $plugin (local.get $context)))))
    ;; Map 0 holds the request's headers; action 0 goes on to the next filter.
    (drop (call $add_header (i32.const 0) (i32.const 16) (i32.const 7)
      (i32.load (local.get $place)) (i32.load (i32.add (local.get $place) (i32.const 4)))))
    (i32.const 0))

  (func (export "proxy_on_done") (param $context i32) (result i32)
    (i32.const 1))
  (func (export "proxy_on_delete") (param $context i32))
)
