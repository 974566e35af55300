# What is rehearsed while the package is precompiled, on Julia 1.9 and newer.
using MLPGF, Test

@testset "the rehearsal plays without a fault and leaves nothing behind" begin
    @test all(==(MLPGF.OK), MLPGF.rehearse())
    @test all(isempty, (MLPGF.HANDLES, MLPGF.C_TABLE, MLPGF.WARM, MLPGF.PATHS))
    @test MLPGF.LAST_HANDLE[] == 0 && MLPGF.SCRATCH[] === nothing
end
