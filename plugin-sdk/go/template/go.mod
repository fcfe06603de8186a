module example.com/{{name}}

go 1.27

require quipu v0.0.0

replace quipu => ./.quipu/sdk/go
