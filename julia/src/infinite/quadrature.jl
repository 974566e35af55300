# Pairs whose Mehler series converges too slowly: sharp units with nearly the same direction. An outer rule along v₁,
# the direction of one unit, and an inner one along v₂, where the other unit is as sharp as r₂ s only.

"""
    Smoothed

Expectations of a unit at σ z + mean over a standard normal z: of f, f' and f''; of f'' z and f'' (z² - 1); and Σ jump
φ(t) and Σ jump φ(t) t over the kinks, at z = t. The f'' are those between kinks.
"""
mutable struct Smoothed
    f::Float64
    d::Float64
    s::Float64
    sz::Float64
    szz::Float64
    kink::Float64
    kinkz::Float64
end
Smoothed() = Smoothed(ntuple(_ -> 0.0, 7)...)

function smooth!(out::Smoothed, p::Neuron, nodes::Nodes, mean::Float64, σ::Float64)
    out.kink = out.kinkz = 0.0
    if σ == 0
        reserve!(nodes, LANES)
        @inbounds for i in 1:LANES
            nodes.H[i, 1] = mean
        end
        nodes.n = LANES
        unknown(evaluate!)(p.activation, nodes, 1)
        out.f, out.d, out.s = nodes.H[1, 1], nodes.D[1, 1], nodes.S[1, 1]
        out.sz = out.szz = 0.0
        return out
    end
    for (kink, jump) in zip(p.kinks, p.jumps)
        t = (kink - mean) / σ
        out.kink += jump * φ(t)
        out.kinkz += jump * (abs(t) > 40 ? 0.0 : t * φ(t))
    end
    p.kind == rectified && return smoothed_relu!(out, mean, σ)
    p.activation isa Selu && return smoothed_selu!(out, mean, σ)
    (has_kinks(p) || is_sharp(p, σ)) && panels_for!(nodes, p, σ, mean, CUT, longest_panel(p, σ))
    evaluate_at!(p, nodes, σ, mean)
    f = d = s = sz = szz = 0.0
    @inbounds @simd for i in 1:nodes.n
        w, x = nodes.w[i], nodes.x[i]
        c = w * nodes.S[i, 1]
        f = muladd(w, nodes.H[i, 1], f)
        d = muladd(w, nodes.D[i, 1], d)
        s += c
        sz = muladd(c, x, sz)
        szz = muladd(c, x * x - 1, szz)
    end
    out.f, out.d, out.s, out.sz, out.szz = f, d, s, sz, szz
    return out
end

"""
    rotated_pair!(m, p, q, u, outer, inner, smoothed)

All moments in an orthonormal basis with v₁ along `p`. What has kinks comes first, else the sharper unit: see
`quadrature_pair!`.
"""
function rotated_pair!(m::Moments, p::Neuron, q::Neuron, u::Float64, outer::Nodes, inner::Nodes, out::Smoothed)
    s = orthonormal!(m, p, q, u)
    mean, σ = q.r * u, q.r * s
    if has_kinks(p) || is_sharp(p, p.r) || is_sharp(q, mean)
        empty!(outer.breaks)
        empty!(outer.centers)
        empty!(outer.widths)
        add_features!(outer, p, p.r, p.b, 0.0)
        add_features!(outer, q, mean, q.b, s)
        panels!(outer, CUT, min(longest_panel(p, p.r), longest_panel(q, mean)))
    else
        trapezoid!(outer, max(bandwidth_at(p, p.r), bandwidth_at(q, mean)))
    end
    has_kinks(q) || is_sharp(q, σ) || σ == 0 || trapezoid!(inner, bandwidth_at(q, σ))
    evaluate_at!(p, outer, p.r, p.b)
    clear!(m)
    for i in 1:outer.n
        w, x = outer.w[i], outer.x[i]
        w == 0 && continue
        smooth!(out, q, inner, muladd(mean, x, q.b), σ)
        f, d, c = w * outer.H[i, 1], w * outer.D[i, 1], w * outer.S[i, 1]
        h = x * x - 1
        # E over z of g z, g (z² - 1) and the like, by parts; kinks of g'' follow below
        gz, gzz = σ * out.d, σ * (σ * out.s + out.kink)
        dz, dzz = σ * out.s + out.kink, σ * out.sz + out.kinkz
        m.m00 += f * out.f
        m.m10 += d * out.f
        m.x10 += d * out.f * x
        m.y10 += d * gz
        m.m01 += f * out.d
        m.x01 += f * out.d * x
        m.y01 += f * dz
        m.m11 += d * out.d
        m.x11 += d * out.d * x
        m.y11 += d * dz
        m.xx11 += d * out.d * h
        m.xy11 += d * dz * x
        m.yy11 += d * dzz
        m.m20 += c * out.f
        m.x20 += c * out.f * x
        m.y20 += c * gz
        m.xx20 += c * out.f * h
        m.xy20 += c * gz * x
        m.yy20 += c * gzz
        m.m02 += f * out.s
        m.x02 += f * out.s * x
        m.y02 += f * out.sz
        m.xx02 += f * out.s * h
        m.xy02 += f * out.sz * x
        m.yy02 += f * out.szz
    end
    add_first_kinks!(m, p, q, mean, σ, inner, out)
    add_second_kinks!(m, p, q, u, s, inner, out)
    return m
end

"""
    self_pair!(m, p, nodes)

A smooth unit with itself: one integral along its direction.
"""
function self_pair!(m::Moments, p::Neuron, nodes::Nodes)
    is_sharp(p, p.r) ? panels_for!(nodes, p, p.r, p.b, CUT, longest_panel(p, p.r)) :
        trapezoid!(nodes, bandwidth_at(p, p.r))
    evaluate_at!(p, nodes, p.r, p.b)
    clear!(m)
    copyto!(m.v1, p.n)
    copyto!(m.v2, p.n)
    ff = fd = fdx = dd = ddx = ddxx = fs = fsx = fsxx = 0.0
    @inbounds @simd for i in 1:nodes.n
        w, x, f, d, s = nodes.w[i], nodes.x[i], nodes.H[i, 1], nodes.D[i, 1], nodes.S[i, 1]
        h = x * x - 1
        ff = muladd(w * f, f, ff)
        fd = muladd(w * f, d, fd)
        fdx = muladd(w * f * d, x, fdx)
        dd = muladd(w * d, d, dd)
        ddx = muladd(w * d * d, x, ddx)
        ddxx = muladd(w * d * d, h, ddxx)
        fs = muladd(w * f, s, fs)
        fsx = muladd(w * f * s, x, fsx)
        fsxx = muladd(w * f * s, h, fsxx)
    end
    m.m00, m.m10, m.m01, m.x10, m.x01 = ff, fd, fd, fdx, fdx
    m.m11, m.x11, m.xx11 = dd, ddx, ddxx
    m.m20, m.m02, m.x20, m.x02, m.xx20, m.xx02 = fs, fs, fsx, fsx, fsxx, fsxx
    return m
end

function clear!(m::Moments)
    m.m00 = m.m10 = m.x10 = m.y10 = m.m01 = m.x01 = m.y01 = 0.0
    m.m11 = m.x11 = m.y11 = m.xx11 = m.xy11 = m.yy11 = 0.0
    m.m20 = m.x20 = m.y20 = m.xx20 = m.xy20 = m.yy20 = 0.0
    m.m02 = m.x02 = m.y02 = m.xx02 = m.xy02 = m.yy02 = 0.0
    return m
end

# f'' = jump δ(h₁ - kink): the line x = t, where g is smoothed along v₂.
function add_first_kinks!(m::Moments, p::Neuron, q::Neuron, mean, σ, inner::Nodes, out::Smoothed)
    for (kink, jump) in zip(p.kinks, p.jumps)
        t = (kink - p.b) / p.r
        w = jump * φ(t) / p.r
        w == 0 && continue
        smooth!(out, q, inner, muladd(mean, t, q.b), σ)
        g, gz, gzz = w * out.f, w * σ * out.d, w * σ * (σ * out.s + out.kink)
        m.m20 += g
        m.x20 += t * g
        m.y20 += gz
        m.xx20 += (t * t - 1) * g
        m.xy20 += t * gz
        m.yy20 += gzz
    end
end

# g'' = jump δ(h₂ - kink): the line y = t, where f is smoothed across n₂.
function add_second_kinks!(m::Moments, p::Neuron, q::Neuron, u, s, inner::Nodes, out::Smoothed)
    any_weight = false
    for (kink, jump) in zip(q.kinks, q.jumps)
        t = (kink - q.b) / q.r
        w = jump * φ(t) / q.r
        w == 0 && continue
        σ = p.r * s
        any_weight || has_kinks(p) || trapezoid!(inner, bandwidth_at(p, σ))
        any_weight = true
        smooth!(out, p, inner, muladd(p.r * u, t, p.b), σ)
        f, fz, fzz = w * out.f, w * σ * out.d, w * σ * (σ * out.s + out.kink)
        m.m02 += f
        x, y = turn(u, s, t * f, fz)
        m.x02 += x
        m.y02 += y
        xx, xy, yy = turn(u, s, (t * t - 1) * f, t * fz, fzz)
        m.xx02 += xx
        m.xy02 += xy
        m.yy02 += yy
    end
end

"The same with the roles of the two units exchanged, in the same basis."
function flip!(m::Moments)
    m.m10, m.m01, m.x10, m.x01, m.y10, m.y01 = m.m01, m.m10, m.x01, m.x10, m.y01, m.y10
    m.m20, m.m02, m.x20, m.x02, m.y20, m.y02 = m.m02, m.m20, m.x02, m.x20, m.y02, m.y20
    m.xx20, m.xx02, m.xy20, m.xy02, m.yy20, m.yy02 = m.xx02, m.xx20, m.xy02, m.xy20, m.yy02, m.yy20
    return m
end

function quadrature_pair!(m::Moments, p::Neuron, q::Neuron, u::Float64, outer::Nodes, inner::Nodes, out::Smoothed)
    swap = has_kinks(p) == has_kinks(q) ? bandwidth_at(p, p.r) < bandwidth_at(q, q.r) : has_kinks(q)
    return swap ? flip!(rotated_pair!(m, q, p, u, outer, inner, out)) : rotated_pair!(m, p, q, u, outer, inner, out)
end
