# What is run while compiled code is being kept.
using MLPGF, Test

@testset "the workload runs without a fault and leaves nothing behind" begin
    @test MLPGF.workload() == String[]
    @test all(isempty, (MLPGF.HANDLES, MLPGF.C_TABLE, MLPGF.WARM, MLPGF.PATHS, MLPGF.EXPRESSIONS, MLPGF.OPTIONS,
                         MLPGF.RULES))
    @test MLPGF.LAST_HANDLE[] == 0 && MLPGF.SCRATCH[] === nothing && isempty(MLPGF.LAST_ERROR[])
end
