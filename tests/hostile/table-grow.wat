;; Grows a table until it is refused, and traps then.
(table $t 1 funcref)
(func $process (result i32) (loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) (unreachable))
