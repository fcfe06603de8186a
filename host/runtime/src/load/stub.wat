;; WASI 0.1, answered inside the component and without effect: for what toolchains import though the plugin never asked.
;;
;; Nothing is read, written or waited for. The clock moves by a microsecond at each look, the random bytes are the same in
;; each instance, standard output swallows everything, and there are no files. Keeps no memory of its own and calls
;; nothing, since some runtimes look at the clock inside of their allocator, where no import may be called.
(module
  (type $p1 (func (param i32) (result i32)))
  (type $p2 (func (param i32 i32) (result i32)))
  (type $p3 (func (param i32 i32 i32) (result i32)))
  (type $p4 (func (param i32 i32 i32 i32) (result i32)))
  (type $p5 (func (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "memory" (memory 0))

  (global $ns (mut i64) (i64.const 1700000000000000000))
  (func $now (result i64)
    (global.set $ns (i64.add (global.get $ns) (i64.const 1000)))
    (global.get $ns))

  ;; Errors: 8 is "bad file descriptor", 52 "not supported", 76 "not capable".

  ;; Nothing was given to it: no arguments, no environment.
  (func $none (param $count i32) (param $size i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $size) (i32.const 0))
    (i32.const 0))
  (func $done (type $p2) (i32.const 0))
  (export "args_sizes_get" (func $none))
  (export "environ_sizes_get" (func $none))
  (export "args_get" (func $done))
  (export "environ_get" (func $done))

  (func (export "clock_res_get") (param $clock i32) (param $out i32) (result i32)
    (i64.store (local.get $out) (i64.const 1000))
    (i32.const 0))
  (func (export "clock_time_get") (param $clock i32) (param $precision i64) (param $out i32) (result i32)
    (i64.store (local.get $out) (call $now))
    (i32.const 0))
  (func (export "random_get") (param $at i32) (param $length i32) (result i32)
    (local $end i32) (local $x i64)
    (local.set $end (i32.add (local.get $at) (local.get $length)))
    (local.set $x (call $now))
    (block $full
      (loop $next
        (br_if $full (i32.ge_u (local.get $at) (local.get $end)))
        ;; xorshift64
        (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
        (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
        (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))
        (i32.store8 (local.get $at) (i32.wrap_i64 (i64.shr_u (local.get $x) (i64.const 24))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (i32.const 0))
  (func (export "sched_yield") (result i32) (i32.const 0))
  ;; A sleep is over at once: no event.
  (func (export "poll_oneoff") (param $in i32) (param $out i32) (param $count i32) (param $events i32) (result i32)
    (i32.store (local.get $events) (i32.const 0))
    (i32.const 0))
  (func (export "proc_exit") (param i32) (unreachable))
  (func (export "proc_raise") (type $p1) (unreachable))

  ;; Says that all of it was written.
  (func (export "fd_write") (param $fd i32) (param $parts i32) (param $count i32) (param $out i32) (result i32)
    (local $sum i32)
    (block $counted
      (loop $next
        (br_if $counted (i32.eqz (local.get $count)))
        (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $parts))))
        (local.set $parts (i32.add (local.get $parts) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $out) (local.get $sum))
    (i32.const 0))

  (func $bad1 (type $p1) (i32.const 8))
  (func $bad2 (type $p2) (i32.const 8))
  (func $bad3 (type $p3) (i32.const 8))
  (func $bad4 (type $p4) (i32.const 8))
  (export "fd_close" (func $bad1))
  (export "fd_datasync" (func $bad1))
  (export "fd_sync" (func $bad1))
  (export "fd_fdstat_get" (func $bad2))
  (export "fd_fdstat_set_flags" (func $bad2))
  (export "fd_filestat_get" (func $bad2))
  (export "fd_prestat_get" (func $bad2))
  (export "fd_renumber" (func $bad2))
  (export "fd_tell" (func $bad2))
  (export "fd_prestat_dir_name" (func $bad3))
  (export "fd_read" (func $bad4))
  (func (export "fd_advise") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_allocate") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_pread") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_pwrite") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (i32.const 8))

  (func $no3 (type $p3) (i32.const 76))
  (func $no5 (type $p5) (i32.const 76))
  (export "path_create_directory" (func $no3))
  (export "path_remove_directory" (func $no3))
  (export "path_unlink_file" (func $no3))
  (export "path_filestat_get" (func $no5))
  (export "path_symlink" (func $no5))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) (i32.const 76))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 76))
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) (i32.const 76))
  (func (export "path_readlink") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 76))
  (func (export "path_rename") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 76))

  (func (export "sock_accept") (param i32 i32 i32) (result i32) (i32.const 52))
  (func (export "sock_recv") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 52))
  (func (export "sock_send") (param i32 i32 i32 i32 i32) (result i32) (i32.const 52))
  (func (export "sock_shutdown") (param i32 i32) (result i32) (i32.const 52)))
