# Constraints θ = B z + c: derivatives against differences of the loss at B z + c, flows and minima against closed
# forms, kinks against the narrower net that ties make.
using MLPGF, LinearAlgebra, Test
import MLPGF: coordinates, embed, n_coordinates

Base.include(@__MODULE__, joinpath(@__DIR__, "finite_differences.jl"))

normal(seed, dims...) = (rng = MLPGF.Xoshiro256(seed); reshape([MLPGF.normal!(rng) for _ in 1:prod(dims)], dims))

const X, Y = normal(1, 2, 12), normal(2, 2, 12)
const LAYERS = ((3, tanh, true), (2, identity, true))
make(; T=Float64, options...) = Net(; layers=LAYERS, input=T.(X), target=T.(Y), l2=0.1, maxnorm=0.01, options...)

const NET = make()
const START = random_params(1, NET)
const DENSE = normal(3, 17, 5)
const CONSTRAINTS = ["frozen" => Constraint(START; freeze=[2, 10, 17]),
                     "tied" => Constraint(START; tie=[[1, 3, -5], [16, -17]]),
                     "both" => Constraint(START; freeze=[8], tie=[[1, 3], [3, -2], [10, 11]]),
                     "dense" => Constraint(DENSE, START),
                     "chain" => Constraint([i == j || i == j + 1 ? 1.0 : 0.0 for i in 1:17, j in 1:16], START)]

@testset "constraints" begin
    @testset "derivatives, $name" for (name, C) in CONSTRAINTS
        r, z = ConstrainedNet(NET, C), normal(4, n_coordinates(C))
        B, v, big_net = big.(Matrix(C)), normal(5, n_coordinates(C)), make(T=BigFloat)
        value(z) = loss(big_net, B * z + big.(C.c))
        h = big(10.0)^-20
        e(i) = [j == i ? h : zero(h) for j in eachindex(z)]
        g = [(value(z + e(i)) - value(z - e(i))) / 2h for i in eachindex(z)]
        H = [(value(z + e(i) + e(j)) - value(z + e(i) - e(j)) - value(z - e(i) + e(j)) + value(z - e(i) - e(j))) / 4h^2
             for i in eachindex(z), j in eachindex(z)]
        @test loss(r, z) ≈ value(big.(z)) rtol = 1e-14
        @test relative(gradient(r, z), g) < 1e-13
        @test relative(hessian(r, z), H) < 1e-13
        @test issymmetric(hessian(r, z))
        @test relative(hvp(r, z, v), H * v) < 1e-13
        J = reshape(jacobian(r, z), :, length(z))
        @test relative(gauss_newton(r, z), 2 / 12 * J' * J) < 1e-13
        @test relative(tangent_kernel(r, z), J * J') < 1e-13
        @test predict(r, z) == predict(NET, embed(C, z))
        @test coordinates(C, embed(C, z)) ≈ z rtol = 1e-12
    end
    @testset "coordinates" begin
        C = Dict(CONSTRAINTS)["both"]
        θ = embed(C, coordinates(C, START))
        @test θ[1] == θ[3] == -θ[2] && θ[10] == θ[11] && θ[8] === START[8]
        free = setdiff(1:17, [1, 2, 3, 10, 11])
        @test θ[free] == START[free]
        @test θ[1] ≈ (START[1] + START[3] - START[2]) / 3          # the nearest point
        @test embed(C, coordinates(C, θ)) == θ
        many = fill(0.1, 49)
        tied = Constraint(many; tie=[1:49])
        @test embed(tied, coordinates(tied, many)) == many
    end
    @testset "no allocation" begin
        allocated(f, args...) = (f(args...); @allocated f(args...))
        for net in (NET, InfiniteNet(TeacherNet(layers=LAYERS, params=START, n_features=2), LAYERS))
            C = Dict(CONSTRAINTS)["both"]
            r, z = ConstrainedNet(net, C), coordinates(C, START)
            g, H = zero(z), zeros(length(z), length(z))
            @test allocated(gradient!, g, r, z) == allocated(gradient!, zero(START), net, START)
            @test allocated(hvp!, g, r, z, z) == allocated(hvp!, zero(START), net, START, START)
            @test allocated(hessian!, H, r, z) == allocated(hessian!, zeros(17, 17), net, START)
        end
    end
    @testset "what cannot be" begin
        @test_throws ArgumentError Constraint(START; tie=[[1, -1]])
        @test_throws ArgumentError Constraint(START; tie=[[1, 2], [2, 3], [3, -1]])
        @test_throws ArgumentError Constraint(START; freeze=[1], tie=[[1, 2]])
        @test_throws ArgumentError Constraint(START; freeze=1:17)
        @test_throws ArgumentError Constraint(START; freeze=[18])
        @test_throws ArgumentError Constraint(START; tie=[[1, 18]])
        @test_throws ArgumentError Constraint([DENSE DENSE[:, 1] + DENSE[:, 2]], START)
        @test_throws ArgumentError Constraint([1.0 0.0; 2.0 0.0], [0.0, 0.0])
        @test_throws DimensionMismatch minimize(NET, START; constraint=Constraint(zeros(3); freeze=[1]))
        C = Dict(CONSTRAINTS)["tied"]
        @test_throws ArgumentError flow(NET, START; constraint=C, tauinv=[i == 3 ? 0.5 : 1.0 for i in 1:17])
        @test_throws ArgumentError classify(NET, START; constraint=C)
        @test Constraint(START; freeze=[1, 2], tie=[[1, 2]]).c[1:2] == START[1:2]
    end
end

# L(θ) = ‖W X − y‖²/N is quadratic: with Q = ∇²L the flow of z is linear, z(t) = z∞ + exp(−BᵀQB t)(z − z∞).
@testset "linear nets" begin
    net = Net(layers=((1, identity, true),), input=normal(6, 4, 30), target=normal(7, 1, 30))
    θ = [1.0, -0.5, 0.3, 2.0, 0.7]
    Q, g0 = hessian(net, θ), gradient(net, zeros(5))
    methods = [MLPGF.FLOW_METHODS[name] for name in MLPGF.FLOW_METHODS.names]
    for C in (Constraint(θ; freeze=[2], tie=[[1, -3]]), Constraint(normal(8, 5, 3), θ), Constraint(θ; freeze=[5]))
        B, z = Matrix(C), coordinates(C, θ)
        rates = C.c[2] == θ[2] && n_coordinates(C) == 3 && count(!iszero, C.c) == 1 ? [2.0, 1.0, 2.0, 0.5, 1.0] : 1.0
        τ = rates isa Real ? ones(length(z)) : [2.0, 0.5, 1.0]
        A, b = B' * Q * B, B' * (Q * C.c + g0)
        end_point = -(A \ b)
        at(t) = B * (end_point + exp(-Diagonal(τ) * A * t) * (z - end_point)) + C.c
        seen = Ref(0)
        for alg in methods
            r = flow(net, θ; alg=alg, constraint=C, tauinv=rates, maxT=2.0, abstol=1e-9, reltol=1e-9, dense=true,
                     observables=["third" => x -> x[3]], event=(t, x) -> (seen[] += length(x) == 5; false))
            @test r.x ≈ at(2.0) atol = 1e-6
            @test r.sol(0.7) ≈ at(0.7) atol = 1e-6
            @test r.trajectory.x[:, end] == r.x && r.trajectory["third"] == r.trajectory.x[3, :]
            @test r.trajectory.x[:, 1] == embed(C, z)
            @test r.gnorm ≈ maximum(abs, B' * (Q * r.x + g0)) rtol = 1e-5
        end
        @test seen[] > 100
        points = Ref(0)
        count_points(phase, i, t, loss, gnorm, x) = (points[] += x !== nothing && length(x) == 5; Stop.running)
        monitor = Monitor(count_points; interval=0)
        for name in filter(!=("VariableProjection"), MLPGF.MINIMIZE_METHODS.names)       # which needs a hidden layer
            m = minimize(net, θ; optim_solver=MLPGF.MINIMIZE_METHODS[name], constraint=C, monitor=monitor)
            @test m.x ≈ B * end_point + C.c atol = 1e-13
            @test m.gnorm < 1e-14
        end
        @test points[] > 6
        both = train(net, θ; constraint=C, maxT=1.0)
        @test both.x ≈ B * end_point + C.c atol = 1e-13
        @test both.init == θ
        @test both.ode.x ≈ B * (end_point + exp(-A) * (z - end_point)) + C.c atol = 1e-4
        for alg in (GradientDescent(learning_rate=1e-3), Momentum(learning_rate=1e-3))
            d = flow(net, θ; alg=alg, constraint=C, maxiterations=50_000)
            @test d.x ≈ B * end_point + C.c atol = 1e-7
        end
        # One step on a batch of all but one sample, drawn as without a constraint.
        d = flow(net, θ; alg=GradientDescent(learning_rate=0.1), batchsize=29, seed=3, maxiterations=1, constraint=C)
        free = flow(net, embed(C, z); alg=GradientDescent(learning_rate=0.1), batchsize=29, seed=3, maxiterations=1)
        @test d.x ≈ B * (z + B' * (free.x - embed(C, z))) + C.c
        c = classify(net, both.x; constraint=C)
        @test c.kind == "minimum" && c.eigenvalues ≈ eigvals(Symmetric(A))
        p = polish(net, θ; constraint=C, digits=30)
        big_end = -((big.(B)' * hessian(MLPGF.with_number_type(BigFloat, net), big.(θ)) * big.(B)) \
                    (big.(B)' * gradient(MLPGF.with_number_type(BigFloat, net), big.(C.c))))
        @test maximum(abs, p.x - (big.(B) * big_end + big.(C.c))) < 1e-28
        @test p.converged
    end
end

# Two pairs of equal units with equal outgoing weights are two units whose outgoing weights are twice as large and, as
# their coordinate is one of the pair, four times as fast.
@testset "kinks, $(name)" for (name, f) in ("relu" => relu, "selu" => selu)
    T = 4.0
    x, y = normal(9, 1, 15), normal(10, 1, 15)
    wide = Net(layers=((4, f, true), (1, identity, false)), input=x, target=y)
    narrow = Net(layers=((2, f, true), (1, identity, false)), input=x, target=y)
    q = normal(11, 6)
    θ = [q[1], q[1], q[2], q[2], q[3], q[3], q[4], q[4], q[5] / 2, q[5] / 2, q[6] / 2, q[6] / 2]
    C = Constraint(θ; tie=[[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12]])
    for alg in (Tsit5(), Rodas5P())
        a = flow(wide, θ; alg=alg, constraint=C, maxT=T, abstol=1e-9, reltol=1e-9)
        b = flow(narrow, q; alg=alg, tauinv=[1, 1, 1, 1, 4, 4], maxT=T, abstol=1e-9, reltol=1e-9)
        @test a.x[[1, 3, 5, 7]] ≈ b.x[1:4] rtol = 1e-5
        @test 2 .* a.x[[9, 11]] ≈ b.x[5:6] rtol = 1e-5
        @test a.x[[1, 5]] == a.x[[2, 6]]
    end
end

@testset "classification under constraints" begin
    # The unit of the narrow minimum is there twice: free, that is a line of fixed points; with one unit frozen a point.
    x = reshape(collect(range(-2, 2; length=40)), 1, :)
    wide = Net(layers=((2, tanh, false), (1, identity, false)), input=x, target=tanh.(1.5x))
    θ = [1.5, 1.5, 0.4, 0.6]
    @test classify(wide, θ).kind == "degenerate"
    @test classify(wide, θ; constraint=Constraint(θ; freeze=[2, 4])).kind == "minimum"
    tied = classify(wide, θ; constraint=Constraint(θ; tie=[[1, 2]]))
    @test tied.nullity == 1 && tied.unexplained == 0 && tied.explanations[1][1] == "duplicate units"
    # At zero the loss falls where all weights grow together.
    c = classify(wide, [0.0, 0.0, 0.0, 0.0]; constraint=Constraint(zeros(4); tie=[[1, 2], [3, 4]]))
    @test c.kind == "saddle" && c.index == 1
    @test c.direction ≈ [1, 1, 1, 1] / 2 * sign(c.direction[1])
    # Separable classes run to infinity unless the weights that would are frozen.
    classes = Net(layers=((2, "softmax", true),), input=[-1.0 -2.0 1.0 2.0], target=[1, 1, 2, 2], loss="nll")
    w = [-30.0, 30.0, 0.0, 0.0]
    @test classify(classes, w).kind == "escaping"
    @test classify(classes, w; constraint=Constraint(w; freeze=[3, 4])).kind == "escaping"
    tied = [0.5, 0.5, 0.0, 0.0]                   # weights that cannot tell the classes apart
    @test classify(classes, tied; constraint=Constraint(tied; tie=[[1, 2]])).kind == "degenerate"
end

# A symmetric teacher on infinitely many inputs: the flow that begins symmetric stays so; the constrained one is the
# same.
@testset "infinite data" begin
    layers = ((2, sigmoid2, false), (1, identity, false))
    teacher = TeacherNet(layers=layers, params=[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], n_features=2)
    net = InfiniteNet(teacher, layers)
    θ = [0.3, 0.1, 0.1, 0.3, 0.5, 0.5]
    C = Constraint(θ; tie=[[1, 4], [2, 3], [5, 6]])
    # The gradient of a group of two is twice that of one.
    r = flow(net, θ; constraint=C, tauinv=0.5, maxT=3.0, abstol=1e-9, reltol=1e-9)
    @test r.x ≈ flow(net, θ; maxT=3.0, abstol=1e-9, reltol=1e-9).x rtol = 1e-6
    m = minimize(net, θ; constraint=C)
    @test m.x ≈ [1, 0, 0, 1, 1, 1] atol = 1e-7
    B, z = Matrix(C), coordinates(C, θ)
    @test hessian(ConstrainedNet(net, C), z) ≈ B' * hessian(net, θ) * B
end

# The loss is quadratic in the coordinates of output weights alone: their best values are those of Newton's step with
# their block of the Hessian.
@testset "variable projection, $name" for (name, (constraint, linear)) in (
        "output weights in part" => ((freeze=[17, 20, 26], tie=[[1, -4], [13, 14]]), 7),
        "weights of both outputs" => ((tie=[[17, 21], [25, -26]],), 8), "no output weights" => ((freeze=17:26,), 0),
        "output weights alone" => ((freeze=1:16,), 10), "mixed" => ((tie=[[1, 17], [18, 19]],), 8),
        "dense" => (normal(12, 26, 9), 0))
    layers, x, w = ((4, tanh, true), (2, identity, true)), normal(13, 3, 60), abs.(normal(14, 60))
    θ = normal(15, 26)
    C = constraint isa Matrix ? Constraint(constraint, θ) : Constraint(θ; constraint...)
    fit(y) = Net(layers=layers, input=x, target=y, weights=w, output_factor=0.5)
    truth = embed(C, normal(16, n_coordinates(C)))
    net = fit(predict(fit(zeros(2, 60)), truth))
    r, z = ConstrainedNet(net, C), normal(17, n_coordinates(C))
    state = MLPGF.make_state(VariableProjection(), MLPGF.Objective(r), z)
    free, best = findall(state.linear), copy(z)
    @test length(free) == linear
    @test MLPGF.solve_outputs!(state, MLPGF.Objective(r), best)
    g, H = gradient(r, z), hessian(r, z)
    @test best[free] ≈ z[free] - (H[free, free] + MLPGF.output_damping(state)^2 * I) \ g[free] rtol = 1e-10
    @test best[.!state.linear] == z[.!state.linear]
    near = truth + MLPGF.image(C, 0.1 * normal(18, n_coordinates(C)))
    m = minimize(net, near; optim_solver=VariableProjection(), constraint=C, maxiterations=300)
    @test m.loss < 1e-29 && m.stopped_by == Stop.roundoff
    @test embed(C, coordinates(C, m.x)) ≈ m.x rtol = 1e-13
    objective = MLPGF.Objective(r)
    state = MLPGF.make_state(VariableProjection(), objective, coordinates(C, near))
    steps(state, objective, n) = (for _ in 1:n; MLPGF.step!(state, objective, VariableProjection()); end)
    steps(state, objective, 1)
    @test (@allocated steps(state, objective, 3)) == 0
end

# "auto" goes over to it where a fit is nearly perfect: two units more than needed, some output weights held.
@testset "auto under a constraint" begin
    x = normal(19, 2, 80)
    teacher = Net(layers=((2, softplus, true), (1, identity, true)), n_features=2)
    y = predict(teacher, normal(20, n_params(teacher)), x)
    net = Net(layers=((4, softplus, true), (1, identity, true)), input=x, target=y)
    C = Constraint(random_params(2, net); freeze=[13])
    auto = minimize(net, random_params(2, net); constraint=C, maxiterations=3000)
    newton = minimize(net, random_params(2, net); constraint=C, maxiterations=3000, optim_solver=NewtonLBFGS())
    @test auto.x[13] == C.c[13]
    @test auto.loss < newton.loss / 1000
end
