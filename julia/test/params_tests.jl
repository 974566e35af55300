using MLPGF, Random, Test

@testset "parameters" begin
    @testset "the generator is xoshiro256++" begin
        # Known outputs of the reference implementation for the state 1, 2, 3, 4.
        rng = MLPGF.Xoshiro256(1, 2, 3, 4)
        @test [MLPGF.next!(rng) for _ in 1:4] == [0x0000000002800001, 0x0000000003800067, 0x000cc00003800067,
                                                  0x000cc201994400b2]
    end
    @testset "normal numbers" begin
        rng = MLPGF.Xoshiro256(3)
        x = [MLPGF.normal!(rng) for _ in 1:200_000]
        n = length(x)
        @test abs(sum(x) / n) < 4 / sqrt(n)
        @test abs(sum(abs2, x) / n - 1) < 4 * sqrt(2 / n)
        @test abs(sum(z -> z^4, x) / n - 3) < 4 * sqrt(96 / n)
        @test abs(count(z -> abs(z) < 1.959963984540054, x) / n - 0.95) < 4 * sqrt(0.95 * 0.05 / n)
    end
    @testset "the plain logarithm" begin
        for x in (1e-300, 1e-17, 0.1, 0.49999, 0.5, 0.70710678, 0.9999999, 1 - 2.0^-53)
            @test MLPGF.plain_log(x) ≈ log(big(x)) rtol = 4e-16
        end
    end
    @testset "initial parameters" begin
        net = Net(layers = ((3, softplus, true), (2, identity, false)), input = [1.0 2.0], target = [1.0 2.0; 3.0 4.0])
        θ = random_params(5, net)
        @test θ == random_params(5, net) != random_params(6, net)
        (W1, b1), (W2, b2) = unpack(net, θ)
        @test size(W1) == (3, 1) && size(W2) == (2, 3) && b1 == zeros(3) && b2 === nothing
        @test W2[1, :] == θ[7:9]
        uniform = random_params(5, net; init = MLPGF.glorot_uniform)
        @test maximum(abs, uniform[7:12]) <= sqrt(6 / 5)
        @test random_params(MersenneTwister(1),
                            net)[7] == sqrt(2 / 5) * (r = MersenneTwister(1); [randn(r) for _ in 1:4][4])
        # To the last bit, on every Julia and from Python (tests/network/test_net.py).
        @test θ[1:3] == [-1.0802437811213577, 0.17624594687349454, -0.049449597002503315]
    end
end
