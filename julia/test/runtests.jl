using MLPGF, Test

@testset "MLPGF" begin
    include("derivative_tests.jl")
end
