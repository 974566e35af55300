using MLPGF, Random, Test
using MLPGF: Crew, LossPass, gauss_newton, serve!, share_of, ticket

# A crew may have more workers than Julia has threads: helpers take turns.
crew!(net, workers) = (net.crew = Crew{eltype(net.blocks[1].X)}(net.layers, net.blocks, workers); net)
# Without tasks nobody helps but who is called.
function alone!(net)
    push!(net.crew.tasks, Task(() -> nothing))
    net.crew.θ, net.crew.v = zeros(n_params(net)), zeros(n_params(net))
    return net
end

@testset "the same numbers for every number of threads" begin
    rng = MersenneTwister(1)
    X, Y = randn(rng, 3, 7000), randn(rng, 2, 7000)
    for T in (Float64, Float32), (layers, loss, target) in
            ((((6, "softplus", true), (1, "identity", true)), "mse", Y[1:1, :]),
             (((5, "tanh", true), (4, "tanh", true), (2, "identity", true)), "mse", Y),
             (((5, "tanh", true), (2, "identity", true)), "correlation", Y),
             (((5, "tanh", false), (4, "g", true), (2, "softmax", true)), "nll", abs.(Y)))
        new() = Net(; layers=layers, input=X, target=target, loss=loss, T=T)
        one = new()
        θ, v = T.(randn(rng, n_params(one)) / 2), T.(randn(rng, n_params(one)))
        values(net) = (MLPGF.loss(net, θ), gradient(net, θ), hvp(net, θ, v), hessian(net, θ), gauss_newton(net, θ))
        expected = values(one)
        for workers in (2, 3, 8)
            net = crew!(new(), workers)
            @test length(net.crew.workers) == workers
            for _ in 1:5
                net.crew.rest = 0               # helpers are invited, whether they cost or bring time
                @test values(net) == expected
            end
        end
    end
end

@testset "moments of the output layer on several threads" begin
    rng = MersenneTwister(2)
    one = Net(layers=((4, tanh, true), (2, "identity", true)), input=randn(rng, 2, 5000), target=randn(rng, 2, 5000))
    x = random_params(1, one)
    found = [minimize(crew!(MLPGF.twin(one), n), x;
                      optim_solver=VariableProjection(), maxiterations=5).x for n in (1, 2, 3)]
    @test found[1] == found[2] == found[3] != x
end

# A loss with a hook, in a net of 48 blocks: 24 shares of 2, or 12 of 4 for matrices. The hook sees every call.
function hooked()
    hook, calls = Ref{Any}(() -> nothing), Ref(0)
    f(y, z) = (calls[] += 1; hook[](); (y - z)^2)
    rng = MersenneTwister(3)
    net = Net(layers=((3, tanh, true), (1, "identity", true)), input=randn(rng, 2, 48 * 256),
              target=randn(rng, 1, 48 * 256), loss=f)
    return net, hook, calls
end
counted(f, calls) = (calls[] = 0; (f(), calls[]))

@testset "shares that others claim and never deliver: $f" for f in (loss, gradient, hessian)
    net, hook, calls = hooked()
    θ = random_params(4, net)
    expected, once = counted(() -> f(net, θ), calls)
    alone!(crew!(net, 2))
    hook[] = () -> share_of(net.crew.ticket[]) <= net.crew.n && Threads.atomic_add!(net.crew.ticket, 1)
    @test counted(() -> f(net, θ), calls) == (expected, once)         # each sample once, by the thread that asked
    # Nobody is invited to the next one, and to the next two after the second failure.
    crew, number = net.crew, net.crew.ticket[]
    @test (crew.rest, crew.failures) == (1, 1)
    @test f(net, θ) == expected && crew.ticket[] == number && crew.rest == 0
    @test f(net, θ) == expected && crew.ticket[] > number && (crew.rest, crew.failures) == (2, 2)
    # Where others deliver, they are forgiven.
    crew.rest = 0
    helping = Ref(false)
    hook[] = function ()
        helping[] && return nothing
        helping[] = true
        while share_of(crew.ticket[]) <= crew.n && MLPGF.vacant(crew.pass, crew.workers[2], crew.added[])
            serve!(net, crew.workers[2], Threads.atomic_add!(crew.ticket, 1))
        end
        helping[] = false
    end
    @test counted(() -> f(net, θ), calls) == (expected, once)
    @test (crew.rest, crew.failures) == (0, 1)
end

@testset "a share that is delivered while it is done again" begin
    net, hook, calls = hooked()
    θ = random_params(5, net)
    expected, once = counted(() -> loss(net, θ), calls)
    crew = alone!(crew!(net, 2)).crew
    stolen = Ref(0)
    hook[] = function ()
        stolen[] == 0 && (stolen[] = Threads.atomic_add!(crew.ticket, 1))
        crew.workers[1].ticket == stolen[] || return nothing
        crew.workers[1].ticket = 0                      # once
        serve!(net, crew.workers[2], stolen[])
        crew.workers[1].ticket = stolen[]
        stolen[] = -1
    end
    # The second of two blocks is not done again.
    @test counted(() -> loss(net, θ), calls) == (expected, once + 256)
    @test stolen[] == -1 && crew.workers[2].sums[2].ticket[] == ticket(1, 2)
end

@testset "a helper stops where it is needed no more, and fails silently" begin
    net, hook, calls = hooked()
    crew, n = alone!(crew!(net, 2)).crew, 24
    crew.θ, crew.n, crew.pass = random_params(6, net), n, LossPass()
    sums = crew.workers[2].sums[3]
    crew.added[] = ticket(1, 1)
    @test counted(() -> serve!(net, crew.workers[2], ticket(1, 3)), calls)[2] == 512 && sums.ticket[] == ticket(1, 3)
    crew.added[] = ticket(1, 3)
    @test counted(() -> serve!(net, crew.workers[2], ticket(1, 3)), calls)[2] == 0 && sums.ticket[] == 0
    hook[] = () -> error("in a helper")
    crew.added[] = ticket(1, 1)
    serve!(net, crew.workers[2], ticket(1, 3))
    @test sums.ticket[] == 0
    @test_throws ErrorException loss(net, crew.θ)       # of the thread that asked
    hook[] = () -> nothing
    @test loss(net, crew.θ) == loss(crew!(net, 1), crew.θ)
end

@testset "a copy of a net has helpers of its own" begin
    net = crew!(Net(layers=((3, tanh, true), (1, "identity", true)), input=randn(2, 2000), target=randn(1, 2000)), 2)
    θ = random_params(7, net)
    g = gradient(net, θ)
    copies = (deepcopy(net), MLPGF.twin(net))
    @test all(c -> isempty(c.crew.tasks) && length(c.crew.workers) == 2 && gradient(c, θ) == g, copies)
end
