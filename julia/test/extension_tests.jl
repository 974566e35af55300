# The solvers of other packages, where they are installed: on Julia 1.9 and newer.
using LinearAlgebra, MLPGF, Test
import MLPGF: Stop

Base.include(@__MODULE__, joinpath(@__DIR__, "problems.jl"))

installed(name) = VERSION >= v"1.9" && Base.identify_package(name) !== nothing
package(name) = Base.require(Base.identify_package(name))
const ODE = ["OrdinaryDiffEqTsit5", "OrdinaryDiffEqRosenbrock", "OrdinaryDiffEqSDIRK", "OrdinaryDiffEqBDF"]
const HAVE_ODE, HAVE_SUNDIALS, HAVE_OPTIM, HAVE_NLOPT, HAVE_FORWARDDIFF =
    all(installed, ODE), installed("Sundials"), installed("Optim"), installed("NLopt"), installed("ForwardDiff")
const PACKAGES = Dict{String,Module}(name => package(name) for name in
    [HAVE_ODE ? ODE : String[]; HAVE_SUNDIALS ? ["Sundials"] : String[]; HAVE_OPTIM ? ["Optim"] : String[];
     HAVE_NLOPT ? ["NLopt"] : String[]; HAVE_FORWARDDIFF ? ["ForwardDiff"] : String[]])
pick(name, method) = getfield(PACKAGES[name], method)

const PROBLEMS = test_problems()
problem(name) = PROBLEMS[findfirst(p -> p.name == name, PROBLEMS)]
largest(v) = maximum(abs, v)

@testset "names" begin
    @test MLPGF.provided("KenCarp58", MLPGF.FLOW_PROVIDERS).package == "OrdinaryDiffEqSDIRK"
    @test MLPGF.provided("sciml.Rodas5P", MLPGF.FLOW_PROVIDERS).method == "Rodas5P"
    @test MLPGF.provided("optim.Newton", MLPGF.FLOW_PROVIDERS) === nothing
    @test MLPGF.named_method(MLPGF.FLOW_METHODS, "alg", "Rodas5P") isa Rodas5P       # ours, where there are two
    @test_throws ArgumentError MLPGF.named_method(MLPGF.FLOW_METHODS, "alg", "Rodas55")
    net = problem("quadratic").net
    @test_throws ArgumentError flow(net, zeros(5); alg="KenCarp58")
    @test_throws ArgumentError minimize(net, zeros(5); optim_solver=3)
    HAVE_ODE || @test_throws ArgumentError MLPGF.named_method(MLPGF.FLOW_METHODS, "alg", "sciml.Rodas5P")
end

if HAVE_ODE
    # (package, name, what tolerances of 1e-8 give on smooth problems, relative to the parameters)
    methods = [("OrdinaryDiffEqTsit5", :Tsit5, 1e-6), ("OrdinaryDiffEqRosenbrock", :Rodas5P, 1e-6),
               ("OrdinaryDiffEqSDIRK", :KenCarp58, 1e-6), ("OrdinaryDiffEqSDIRK", :TRBDF2, 1e-4),
               ("OrdinaryDiffEqBDF", :QNDF, 1e-4), ("OrdinaryDiffEqBDF", :FBDF, 1e-4)]
    algorithms = Any[(String(m), pick(p, m)(), bound) for (p, m, bound) in methods]
    if HAVE_SUNDIALS
        push!(algorithms, ("CVODE_BDF", pick("Sundials", :CVODE_BDF)(linear_solver=:GMRES), 1e-4))
        push!(algorithms, ("CVODE_BDF", pick("Sundials", :CVODE_BDF)(), 1e-4))
    end
    @testset "flow by $name" for (name, alg, bound) in algorithms
        for p in PROBLEMS[[1, 3, 4]]
            res = flow(p.net, p.x0; alg=alg, maxT=p.T, abstol=1e-8, reltol=1e-8)
            @test res.stopped_by == Stop.maxT && res.t == p.T && res.alg == name
            # the saddle's escape multiplies an early error by a million
            @test largest(res.x - p.exact(p.T)) <= bound * (p.name == "saddle" ? 1e3 : 1)
        end
        p = problem("33 parameters")
        reference = flow(p.net, p.x0; alg=Rodas5P(), maxT=10, abstol=1e-12, reltol=1e-12)
        res = flow(p.net, p.x0; alg=alg, maxT=10, abstol=1e-8, reltol=1e-8, dense=true, save_everystep=true,
                   tauinv=1, observables=["first" => first])
        @test largest(res.x - reference.x) <= bound * largest(reference.x)
        @test res.loss == loss(p.net, res.x) && issorted(-res.trajectory.loss) && length(res.trajectory) == res.iterations + 1
        @test res.trajectory["first"] == res.trajectory.x[1, :]
        middle = flow(p.net, p.x0; alg=Rodas5P(), maxT=3.3, abstol=1e-12, reltol=1e-12)
        @test largest(res.dense(3.3) - middle.x) <= 100 * bound * largest(middle.x)
        # time constants, one parameter frozen
        tauinv = [i == 3 ? 0.0 : 0.5 + i / 33 for i in 1:33]
        exact = flow(p.net, p.x0; alg=Rodas5P(), maxT=3, abstol=1e-12, reltol=1e-12, tauinv=tauinv)
        slow = flow(p.net, p.x0; alg=alg, maxT=3, abstol=1e-8, reltol=1e-8, tauinv=tauinv)
        @test slow.x[3] === p.x0[3] && largest(slow.x - exact.x) <= bound * largest(exact.x)
        # the stops
        @test flow(p.net, p.x0; alg=alg, maxiterations=7).iterations == 7
        @test flow(p.net, p.x0; alg=alg, min_gnorm=1e-2).stopped_by == Stop.min_gnorm
        @test flow(p.net, p.x0; alg=alg, minloss=1e-2).stopped_by == Stop.minloss
        @test flow(p.net, p.x0; alg=alg, maxtime=0.05, reltol=1e-10, abstol=1e-10).stopped_by == Stop.maxtime
        event = flow(p.net, p.x0; alg=alg, event=(t, x, loss, gnorm) -> loss - 0.1, abstol=1e-8, reltol=1e-8)
        @test event.stopped_by == Stop.event && abs(event.loss - 0.1) < 1e-4
        asked = flow(p.net, p.x0; alg=alg, monitor=MLPGF.Monitor((a...) -> Stop.callback; interval=0.0))
        @test asked.stopped_by == Stop.callback && asked.x == p.x0
    end
    @testset "float32, divergence and the finish line" begin
        p = test_problems(Float32)[1]
        res = flow(p.net, p.x0; alg=pick("OrdinaryDiffEqRosenbrock", :Rodas5P)(), maxT=p.T)
        @test res.x isa Vector{Float32} && largest(res.x - p.exact(p.T)) < 1e-4
        q = problem("quadratic")
        @test flow(q.net, q.x0; alg=pick("OrdinaryDiffEqRosenbrock", :Rodas5P)(), maxtime=20).stopped_by in
              (Stop.roundoff, Stop.min_gnorm)          # a gradient that is zero to the last bit
        # targets that no float can fit: the loss is not finite from the start
        wall = Net(layers=((2, MLPGF.activation("exp"), true), (1, MLPGF.activation("identity"), true)),
                   input=[800.0 -800.0], target=[1.0, 2.0])
        res = flow(wall, [1.0, 1, 0, 0, 1, 1, 0]; alg=pick("OrdinaryDiffEqTsit5", :Tsit5)(), maxtime=5)
        @test res.stopped_by == Stop.diverged && all(isfinite, res.x)
    end
    @testset "by name" begin
        named = MLPGF.named_method(MLPGF.FLOW_METHODS, "alg", "KenCarp58")
        @test MLPGF.provider(named) == "sciml"
        p = problem("quadratic")
        @test flow(p.net, p.x0; alg=named, maxT=1).alg == "KenCarp58"
    end
else
    @info "the extension for OrdinaryDiffEq is not tested: its packages are not in this environment"
end

const WELL_POSED = let X = inputs(Float64, 2, 60)
    layers = ((3, tanh, true), (1, MLPGF.activation("identity"), true))
    Net(layers=layers, input=X, target=sin.(X[1, :]) .+ 0.3 .* X[2, :] .^ 2, l2=1e-3)
end

function check_minimizer(name, solver, bound)
    x0 = random_params(1, WELL_POSED)
    res = minimize(WELL_POSED, x0; optim_solver=solver, maxtime=10)
    @test res.optim_solver == name && res.gnorm <= bound && res.loss == loss(WELL_POSED, res.x)
    @test res.stopped_by in (Stop.roundoff, Stop.patience)
    @test minimize(WELL_POSED, x0; optim_solver=solver, maxiterations=3).iterations == 3
    @test minimize(WELL_POSED, x0; optim_solver=solver, min_gnorm=1e-3).stopped_by == Stop.min_gnorm
    @test minimize(WELL_POSED, x0; optim_solver=solver, minloss=0.2).stopped_by == Stop.minloss
    asked = minimize(WELL_POSED, x0; optim_solver=solver, monitor=MLPGF.Monitor((a...) -> Stop.interrupted; interval=0.0))
    @test asked.stopped_by == Stop.interrupted && asked.x == x0
end

if HAVE_OPTIM
    @testset "minimize by Optim's $method" for method in (:Newton, :NewtonTrustRegion, :BFGS, :LBFGS)
        check_minimizer(String(method), pick("Optim", method)(), 1e-9)
    end
    @test MLPGF.provider(MLPGF.named_method(MLPGF.MINIMIZE_METHODS, "optim_solver", "optim.Newton")) == "optim"
else
    @info "the extension for Optim is not tested: it is not in this environment"
end

if HAVE_NLOPT
    @testset "minimize by NLopt" begin
        check_minimizer("SLSQP", pick("NLopt", :LD_SLSQP), 1e-6)
        @test MLPGF.provider(MLPGF.named_method(MLPGF.MINIMIZE_METHODS, "optim_solver", "SLSQP")) == "nlopt"
        @test_throws ArgumentError minimize(WELL_POSED, random_params(1, WELL_POSED); optim_solver=pick("NLopt", :GN_DIRECT))
    end
else
    @info "the extension for NLopt is not tested: it is not in this environment"
end

if HAVE_FORWARDDIFF
    @testset "derivatives of users' activations by ForwardDiff" begin
        f = MLPGF.activation(x -> x * exp(-x^2))
        @test !(f.differentiation isa MLPGF.Jets)
        for x in (-1.3, 0.0, 0.7), T in (Float64, Float32, BigFloat)
            value, first, second = MLPGF.derivatives(f, T(x))
            @test value isa T && first isa T && second isa T
            e = exp(-T(x)^2)
            exact = (T(x) * e, (1 - 2T(x)^2) * e, (4T(x)^3 - 6T(x)) * e)
            @test all(abs.((value, first, second) .- exact) .<= 8eps(T))
        end
        @test MLPGF.derivatives(MLPGF.activation(x -> 2.0), 1.0) === (2.0, 0.0, 0.0)
    end
else
    @info "the extension for ForwardDiff is not tested: it is not in this environment"
end
