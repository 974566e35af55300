using MLPGF, Test

@testset "MLPGF" begin
    include("derivative_tests.jl")
    include("flow_tests.jl")
    include("minimize_tests.jl")
    include("params_tests.jl")
end
