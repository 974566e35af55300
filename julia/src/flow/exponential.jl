struct Exprb43 <: FlowMethod end
const DENSE_LIMIT=800
